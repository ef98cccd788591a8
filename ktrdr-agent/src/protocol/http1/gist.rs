//! What tells a request that repeats another: an id in both, or what a reverse proxy leaves as it was: method, query, `User-Agent` (an end-to-end field, RFC 9110 §7.6.1), and the path
//! but for a first segment that routes may add or take away.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::head::RequestHead;
use super::target::Target;
use crate::protocol::Gist;

/// Shortest id that is believed to be one request's alone.
const MIN_ID: usize = 8;

/// Without a `User-Agent`, a service's own call to the same path could not be told from one it passes on.
pub(super) fn of(head: &RequestHead<'_>, target: &Target<'_>) -> Gist {
    let id = head.fields.request_id.filter(|id| id.len() >= MIN_ID).map(|id| xxh3_64(id.as_bytes()));
    let Some(path) = target.path.strip_prefix('/') else { return Gist { id, ..Gist::default() } };
    let said = head.fields.user_agent.map(|agent| {
        let texts = [head.method, target.query.unwrap_or_default(), agent];
        texts.iter().fold(0, |hash, text| xxh3_64_with_seed(text.as_bytes(), hash))
    });
    let tail = path.split_once('/').map(|(_, tail)| xxh3_64(tail.as_bytes()));
    Gist { id, said, path: xxh3_64(path.as_bytes()), tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http1::head::Fields;

    fn gist(method: &str, target: &str, agent: Option<&str>) -> Gist {
        let fields = Fields { user_agent: agent, ..Fields::default() };
        let head = RequestHead { len: 0, method, target, minor: 1, fields };
        of(&head, &Target::parse(method, target))
    }

    #[test]
    fn a_proxy_may_change_one_segment_of_the_path_and_nothing_else() {
        let curl = Some("curl/8.5.0");
        let asked = gist("GET", "/api/v1/symbols?limit=5", curl);
        let repeats = |method, target, agent| gist(method, target, agent).repeats(&asked);
        assert!(repeats("GET", "/api/v1/symbols?limit=5", curl));
        assert!(repeats("GET", "http://upstream/api/v1/symbols?limit=5", curl));
        assert!(repeats("GET", "/v1/symbols?limit=5", curl));
        assert!(repeats("GET", "/prefix/api/v1/symbols?limit=5", curl));
        assert!(!repeats("GET", "/symbols?limit=5", curl));
        assert!(!repeats("POST", "/api/v1/symbols?limit=5", curl));
        assert!(!repeats("GET", "/api/v1/symbols?limit=6", curl));
        assert!(!repeats("GET", "/api/v1/symbols", curl));
        assert!(!repeats("GET", "/api/v1/symbols?limit=5", Some("node")));
        for (method, target, agent) in
            [("GET", "/a", None), ("OPTIONS", "*", curl), ("CONNECT", "db:1", curl)]
        {
            let one = gist(method, target, agent);
            assert!(!one.repeats(&one), "{method} {target}");
        }
    }

    #[test]
    fn ids_tell_equal_requests_apart_and_join_different_ones() {
        let with = |target: &str, id| {
            let fields = Fields { user_agent: Some("curl/8"), request_id: id, ..Fields::default() };
            let head = RequestHead { len: 0, method: "GET", target, minor: 1, fields };
            of(&head, &Target::parse("GET", target))
        };
        let (a, b) = (Some("7b0c31f2-1"), Some("7b0c31f2-2"));
        assert!(with("/x", a).repeats(&with("/x", a)) && !with("/x", a).repeats(&with("/x", b)));
        // A proxy may give one to a request without.
        assert!(with("/x", None).repeats(&with("/x", a)));
        assert!(with("/x", a).shares_id(&with("/y", a)) && !with("/x", a).shares_id(&with("/x", b)));
        assert!(!with("/x", None).shares_id(&with("/x", None)));
        assert!(!with("/x", Some("1")).shares_id(&with("/y", Some("1"))));
    }
}
