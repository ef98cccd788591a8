//! From a path to its low-cardinality template.
//!
//! A pure function of one path: it cannot learn which segments vary, so it judges each segment by its own shape
//! (and, for symbols, the segment before it).
//!
//! | segment | becomes |
//! |---|---|
//! | numbers, dates, times, UUIDs, ULIDs, hex of 8 and more, KTRDR operation and worker ids, anything with 3 and more digits, long or percent-encoded text, e-mail addresses | `{id}` |
//! | capitals as tickers are written (`AAPL`, `BRK.B`, `EUR.USD`, `ES=F`) after a segment in lower case or a replaced one | `{symbol}` |
//! | the rest | itself |
//!
//! What it gets wrong, on purpose: a constant such as `/sha256` is kept but `/iso8601` becomes `{id}` (harmless: the
//! template stays constant), and a slug without digits (`/users/alice`) is kept, as nothing tells it from a route.
//! Only the first [`MAX_SEGMENTS`] segments are told apart, so that a file tree makes no flood of names.

use std::borrow::Cow;

/// Segments that are kept apart: the longest KTRDR route has 6. What follows becomes `*`.
const MAX_SEGMENTS: usize = 10;

/// Segments longer than this are ids or texts: the longest segment of KTRDR's routes has 24 characters.
const MAX_SEGMENT: usize = 40;

/// Ticker symbols are at most this long with their suffixes (`BRK.B`, `EURUSD=X`, `CLZ5.NYMEX`).
const MAX_SYMBOL: usize = 12;

/// What stands for an id.
const ID: &str = "{id}";
/// What stands for a ticker symbol.
const SYMBOL: &str = "{symbol}";

/// The template of a path (without query): `/api/v1/operations/op_training_20251113_…/metrics` becomes
/// `/api/v1/operations/{id}/metrics`. Borrowed where nothing is replaced.
pub fn template(path: &str) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    let mut end = 0;
    let mut after_word = false;
    for (index, segment) in path.split('/').enumerate() {
        let start = end;
        // Path parameters (RFC 3986 §3.3: `;jsessionid=…`) are no part of the route.
        let plain = segment.split(';').next().unwrap_or(segment);
        let mut replacement = kind(plain, after_word);
        if index > MAX_SEGMENTS {
            replacement = Some("*");
        } else if replacement.is_none() && plain.len() < segment.len() {
            replacement = Some(plain);
        }
        after_word = replacement.is_some() || plain.bytes().any(|b| b.is_ascii_lowercase());
        if let Some(replacement) = replacement {
            out.get_or_insert_with(|| {
                let mut out = String::with_capacity(path.len().min(256));
                out.push_str(&path[..start]);
                out
            })
            .push_str(replacement);
        } else if let Some(out) = &mut out {
            out.push_str(plain);
        }
        if index > MAX_SEGMENTS {
            break;
        }
        end = start + segment.len() + 1;
        if let Some(out) = &mut out
            && end <= path.len()
        {
            out.push('/');
        }
    }
    out.map_or(Cow::Borrowed(path), Cow::Owned)
}

/// Counts that a segment is judged by.
#[derive(Default)]
struct Shape {
    digits: usize,
    lower: usize,
    upper: usize,
    /// Letters `a` to `f` in either case.
    hex_letters: usize,
    /// `-` and `_`.
    joints: usize,
    /// What dates, times and numbers are written with: `. : + ,`.
    marks: usize,
    /// `=` and `^` of symbols.
    signs: usize,
    /// `@`, `%`, and all that is not ASCII.
    odd: usize,
}

impl Shape {
    fn of(segment: &str) -> Self {
        let mut shape = Self::default();
        for b in segment.bytes() {
            match b {
                b'0'..=b'9' => shape.digits += 1,
                b'a'..=b'z' => shape.lower += 1,
                b'A'..=b'Z' => shape.upper += 1,
                b'-' | b'_' => shape.joints += 1,
                b'.' | b':' | b'+' | b',' => shape.marks += 1,
                b'=' | b'^' => shape.signs += 1,
                b'@' | b'%' | 0x80.. => shape.odd += 1,
                _ => {}
            }
            shape.hex_letters += usize::from(matches!(b, b'a'..=b'f' | b'A'..=b'F'));
        }
        shape
    }
}

/// What a segment becomes, if not itself.
fn kind(segment: &str, after_word: bool) -> Option<&'static str> {
    if segment.is_empty() {
        return None;
    }
    let s = Shape::of(segment);
    let letters = s.lower + s.upper;
    // `{id}` itself and other templates (a client that logs its route) stay.
    if segment.starts_with('{') && segment.ends_with('}') && segment.len() <= MAX_SEGMENT {
        return None;
    }
    // Numbers; dates and times too have 3 digits. `v1`, `s3` and `1h` are words.
    if s.digits > 0 && letters == 0 || s.digits >= 3 {
        return Some(ID);
    }
    if s.odd > 0 || segment.len() > MAX_SEGMENT {
        return Some(ID);
    }
    let hex = s.digits + s.hex_letters;
    if hex == segment.len() - s.joints && (hex >= 16 || hex >= 8 && s.digits > 0) {
        return Some(ID);
    }
    if is_ktrdr_operation(segment, &s) || has_number(segment, &s) || is_token(segment, &s) {
        return Some(ID);
    }
    let capitals = s.upper > 0 && s.lower == 0 && segment.len() <= MAX_SYMBOL;
    let written_so = s.upper + s.digits + s.marks + s.signs + s.joints == segment.len();
    (capitals && written_so && after_word).then_some(SYMBOL)
}

/// `op_…`, `op-xyz-789`, `worker_training_…` without the digits that nearly all of them have.
fn is_ktrdr_operation(segment: &str, s: &Shape) -> bool {
    let prefixed = segment.starts_with("op_") || segment.starts_with("op-");
    let worker = segment.starts_with("worker_training_") || segment.starts_with("worker_backtest_");
    worker || prefixed && s.digits > 0
}

/// Words joined with a number: `training-worker-1`, `job_7`.
fn has_number(segment: &str, s: &Shape) -> bool {
    s.digits > 0
        && s.joints > 0
        && segment.split(['-', '_']).any(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Random text: long, without joints, and mixed as no word is.
fn is_token(segment: &str, s: &Shape) -> bool {
    let mixed = s.digits > 0 && s.upper > 0 && s.lower > 0;
    segment.len() >= 20 && (mixed || s.joints == 0 && s.marks == 0 && (s.digits > 0 || s.lower == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_varies() {
        for (path, expected) in [
            ("/api/v1/operations/op_training_20251113_120000_ab12cd34", "/api/v1/operations/{id}"),
            (
                "/api/v1/operations/op_data_load_20251113_120000_ab12cd34/metrics",
                "/api/v1/operations/{id}/metrics",
            ),
            ("/api/v1/operations/op-xyz-789", "/api/v1/operations/{id}"),
            ("/operations/op_design_abcdefabcdef/cancel", "/operations/op_design_abcdefabcdef/cancel"),
            ("/operations/worker_training_abcdefabcdef/x", "/operations/{id}/x"),
            ("/workers/ktrdr-training-worker-1", "/workers/{id}"),
            ("/users/42/orders/7", "/users/{id}/orders/{id}"),
            ("/u/123e4567-e89b-12d3-a456-426614174000", "/u/{id}"),
            ("/u/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/u/{id}"),
            ("/commits/deadbeef1", "/commits/{id}"),
            ("/commits/abcdefabcdefabcd", "/commits/{id}"),
            ("/t/dGhpc2lzYXZlcnlsb25n0", "/t/{id}"),
            ("/bars/2024-01-01/2024-12-31", "/bars/{id}/{id}"),
            ("/bars/2025-11-13T10:00:00Z", "/bars/{id}"),
            ("/bars/2025-11-13T10:00:00+01:00", "/bars/{id}"),
            ("/mail/a@b.example", "/mail/{id}"),
            ("/files/my%20file", "/files/{id}"),
            ("/item/-1", "/item/{id}"),
            ("/data/symbol-info/AAPL", "/data/symbol-info/{symbol}"),
            ("/data/symbol-info/BRK.B", "/data/symbol-info/{symbol}"),
            ("/data/AAPL/1h", "/data/{symbol}/1h"),
            ("/data/EURUSD=X/history", "/data/{symbol}/history"),
            ("/users/42/AAPL", "/users/{id}/{symbol}"),
            ("/app;jsessionid=AB12/page", "/app/page"),
            ("/users/42/", "/users/{id}/"),
            ("//42//x", "//{id}//x"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l/m", "/a/b/c/d/e/f/g/h/i/j/*"),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
    }

    #[test]
    fn keeps_what_is_a_route() {
        for path in [
            "",
            "/",
            "*",
            "/health",
            "/api/v1/data/acquire/download",
            "/api/v1/trainings/start",
            "/api/v2/s3/ipv4/oauth2",
            "/docs/swagger-ui-bundle.js",
            "/openapi.json",
            "/.well-known/openid-configuration",
            "/facade/decade",
            "/data/head-timestamp",
            "/API",
            "/api/v1/strategies/neuro_mean_reversion",
            "/api/v1/operations/{id}",
            "/charts/1h",
            "/a/b/c/d/e/f/g/h/i/j",
            "/favicon.ico",
        ] {
            assert!(
                matches!(template(path), Cow::Borrowed(same) if same == path),
                "{path} -> {}",
                template(path)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn takes_any_path_and_settles(path in "(/[ -~]{0,12}|/[A-Z]{1,5}|/[0-9a-f-]{0,36}|/é){0,14}") {
            let once = template(&path).into_owned();
            proptest::prop_assert!(once.matches('/').count() <= MAX_SEGMENTS + 1);
            // A template is its own template: spans of agents in series group alike.
            proptest::prop_assert_eq!(&*template(&once), &once);
        }
    }
}
