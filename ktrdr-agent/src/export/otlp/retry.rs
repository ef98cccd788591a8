//! When to try again, and when not to.
//!
//! Source: the OTLP specification, "Failures" of OTLP/gRPC and OTLP/HTTP.

use std::time::Duration;

use rand::Rng;

/// How a request ended that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is known, for the log.
    pub why: String,
    /// What to do about the batch.
    pub next: Next,
}

/// What to do about a batch that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// No receiver was reached: wait for one.
    Unreachable,
    /// A receiver asked for patience, at least so long if it said so.
    Later(Option<Duration>),
    /// Never again.
    Refused,
}

/// gRPC codes by what they mean for a batch. `delay` is the server's `RetryInfo`, if it sent one.
pub fn grpc(code: tonic::Code, delay: Option<Duration>) -> Next {
    use tonic::Code::*;
    match code {
        Cancelled | DeadlineExceeded | Aborted | OutOfRange | Unavailable | DataLoss => Next::Later(delay),
        // Only a server that says when it will have recovered is worth waiting for.
        ResourceExhausted if delay.is_some() => Next::Later(delay),
        _ => Next::Refused,
    }
}

/// HTTP statuses likewise.
pub fn http(status: u16, delay: Option<Duration>) -> Next {
    match status {
        429 | 502 | 503 | 504 => Next::Later(delay),
        _ => Next::Refused,
    }
}

/// First pause. A receiver that restarts is back within a second or two.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause of our own: the queue is what limits how much is lost meanwhile.
const LONGEST: Duration = Duration::from_secs(15);
/// Longest pause that a receiver may ask for: a wrong header must not stop the export for a day.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// How long one batch may be answered with "later". A batch that only ever makes a proxy fail must not block the
/// others for good. An absent receiver, in contrast, is waited for without an end.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Exponential back-off with jitter.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next pause: between half and all of the current step, and never less than what was asked for. Without
    /// the random part, all agents that lost a receiver would come back to it at the same instant.
    pub fn pause(&mut self, asked: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let own = self.next.mul_f64(rng.random_range(0.5..=1.0));
        self.next = (self.next * 2).min(LONGEST);
        asked.map_or(own, |a| a.min(LONGEST_ASKED).max(own))
    }
}

/// `Retry-After` in seconds. The form with a date is for caches; no OTLP receiver is known to send it.
pub fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// `google.rpc.Status`, which `grpc-status-details-bin` holds (googleapis, `google/rpc/status.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo` (`google/rpc/error_details.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The delay of a `RetryInfo` among a status's details.
pub fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = <RpcStatus as prost::Message>::decode(details).ok()?;
    let info = status.details.iter().find(|d| d.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = <RetryInfo as prost::Message>::decode(info.value.as_slice()).ok()?.retry_delay?;
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use rand::SeedableRng;

    #[test]
    fn only_the_codes_of_the_specification_are_tried_again() {
        let s = Some(Duration::from_secs(3));
        let later: Vec<i32> =
            (0..=16).filter(|&c| grpc(tonic::Code::from_i32(c), None) == Next::Later(None)).collect();
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        assert_eq!(later, [1, 4, 10, 11, 14, 15]);
        assert_eq!(grpc(tonic::Code::ResourceExhausted, s), Next::Later(s));
        let later: Vec<u16> = (100..600).filter(|&c| http(c, s) == Next::Later(s)).collect();
        assert_eq!(later, [429, 502, 503, 504]);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_respect_the_receiver() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let mut step = FIRST;
        for _ in 0..20 {
            let pause = backoff.pause(None, &mut rng);
            assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
            step = (step * 2).min(LONGEST);
        }
        let mut fresh = Backoff::default();
        assert_eq!(fresh.pause(Some(Duration::from_secs(7)), &mut rng), Duration::from_secs(7));
        assert_eq!(fresh.pause(Some(Duration::from_secs(86_400)), &mut rng), LONGEST_ASKED);
        assert!(fresh.pause(Some(Duration::ZERO), &mut rng) > Duration::ZERO, "zero is no reason to spin");
    }

    #[test]
    fn what_the_receiver_asks_for_is_read_or_ignored() {
        assert_eq!(retry_after(" 12 "), Some(Duration::from_secs(12)));
        for bad in ["", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999999"] {
            assert_eq!(retry_after(bad), None);
        }
        let details = |seconds, nanos| {
            let info = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) };
            let any = Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                value: info.encode_to_vec(),
            };
            RpcStatus { details: vec![any] }.encode_to_vec()
        };
        assert_eq!(retry_info(&details(2, 500_000_000)), Some(Duration::from_millis(2500)));
        assert_eq!(retry_info(&details(-2, 0)), None);
        assert_eq!(retry_info(&details(0, i32::MAX)), None);
        assert_eq!(retry_info(b"\xff\xff"), None);
        assert_eq!(retry_info(b""), None);
    }
}
