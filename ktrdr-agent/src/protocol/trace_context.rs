//! W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context/>): the `traceparent` field.

use super::TraceContext;
use crate::trace::model::{SpanId, TraceId};

/// Length of a version 00 value: `00-` 32 hex `-` 16 hex `-` 2 hex.
const LEN: usize = 55;

/// Reads a `traceparent` value. `None` = invalid, to be ignored (§3.2.2.2 to 3.2.2.5): wrong lengths, upper-case hex,
/// version `ff`, an all-zero id. A higher version is read as far as version 00 goes (§4.3).
pub fn parse_traceparent(value: &[u8]) -> Option<TraceContext> {
    let head = value.get(..LEN)?;
    let [version] = hex::<1>(&head[..2])?;
    let dashes = [2, 35, 52].iter().all(|&at| head[at] == b'-');
    let tail_ok = match version {
        0xff => false,
        0 => value.len() == LEN,
        _ => value.len() == LEN || value[LEN] == b'-',
    };
    if !dashes || !tail_ok {
        return None;
    }
    let trace_id = hex::<16>(&head[3..35])?;
    let span_id = hex::<8>(&head[36..52])?;
    let [flags] = hex::<1>(&head[53..55])?;
    if trace_id == [0; 16] || span_id == [0; 8] {
        return None;
    }
    Some(TraceContext { trace_id: TraceId(trace_id), span_id: SpanId(span_id), sampled: flags & 1 == 1 })
}

/// Exactly `N` bytes from `2 * N` lower-case hex digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_the_example_of_the_specification() {
        let context = parse_traceparent(GOOD.as_bytes()).expect("valid");
        assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id.to_string(), "00f067aa0ba902b7");
        assert!(context.sampled);
        let unsampled = parse_traceparent(GOOD.replace("-01", "-02").as_bytes()).expect("valid");
        assert!(!unsampled.sampled, "bit 1 is not bit 0");
    }

    #[test]
    fn tolerates_higher_versions_only_as_the_specification_says() {
        let higher = GOOD.replacen("00", "01", 1);
        assert!(parse_traceparent(higher.as_bytes()).is_some());
        assert!(parse_traceparent(format!("{higher}-what-the-future-brings").as_bytes()).is_some());
        assert!(parse_traceparent(format!("{higher}x").as_bytes()).is_none());
        assert!(
            parse_traceparent(format!("{GOOD}-more").as_bytes()).is_none(),
            "version 00 has a fixed length"
        );
    }

    #[test]
    fn ignores_what_is_invalid() {
        for bad in [
            GOOD.replacen("00", "ff", 1),
            GOOD.to_uppercase(),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("-01", "-0g"),
            GOOD.replacen('-', "_", 1),
            GOOD[..54].to_string(),
            String::new(),
        ] {
            assert_eq!(parse_traceparent(bad.as_bytes()), None, "{bad}");
        }
    }
}
