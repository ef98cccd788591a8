//! Settings of operations, checked and joined with what is built in.

use super::{Bad, said};
use crate::trace::operations::body::FailureRule;
use crate::trace::operations::rules::Rules;

/// Headers that are kept apart per message.
const MAX_HEADERS: usize = 8;

/// The rules that follow from what was said.
pub(super) fn resolve(said: &said::Operations) -> Result<Rules, Bad> {
    let bad = |key: &str, why: String| Bad::new(format!("operations.{key}"), why);
    if said.headers.len() > MAX_HEADERS {
        return Err(bad("headers", format!("at most {MAX_HEADERS} headers")));
    }
    // RFC 9110 §5.6.2, less the odd ones.
    let token = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if let Some(name) = said.headers.iter().find(|name| !token(name)) {
        return Err(bad("headers", format!("`{name}` is no header name: letters, digits, - and _ only")));
    }
    if let Some(key) = said.keys.iter().find(|key| key.is_empty() || key.contains('/')) {
        return Err(bad(
            "keys",
            format!("`{key}` is no key: give the last part only, `job_id` for /data/job_id"),
        ));
    }
    let usable = |p: &str| p.len() >= 2 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if let Some(prefix) = said.id_prefixes.iter().find(|p| !usable(p)) {
        let why = format!("`{prefix}` would fit too much: at least two letters, digits, - or _ (`job-`)");
        return Err(bad("id_prefixes", why));
    }
    if said.stuck_after.0.is_zero() {
        return Err(bad("stuck_after", "must be longer than 0".to_owned()));
    }
    let mut failures = FailureRule::builtin();
    for (i, f) in said.failures.iter().enumerate() {
        failures.push(failure(f).map_err(|why| bad("failures", format!("rule {}: {why}", i + 1)))?);
    }
    Ok(Rules {
        headers: said.headers.iter().map(|h| h.to_ascii_lowercase()).collect(),
        keys: said.keys.clone(),
        prefixes: said.id_prefixes.clone(),
        failures,
        stuck_after: u64::try_from(said.stuck_after.0.as_nanos()).unwrap_or(u64::MAX),
    })
}

fn failure(said: &said::Failure) -> Result<FailureRule, String> {
    for (key, pointer) in [("pointer", &said.pointer), ("message", &said.message)] {
        if !pointer.starts_with('/') {
            return Err(format!("{key} `{pointer}` is no JSON pointer: it begins with / (`/status/failed`)"));
        }
    }
    let value = (!said.value.is_empty()).then(|| said.value.clone());
    Ok(FailureRule { pointer: said.pointer.clone(), value, messages: vec![said.message.clone()] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_on_top_and_nonsense_says_what_to_do() {
        let mut said = said::Operations::default();
        let rules = resolve(&said).unwrap();
        assert_eq!(rules, Rules::default());
        said.headers.push("X-Job".into());
        said.failures.push(said::Failure {
            pointer: "/ok".into(),
            value: "0".into(),
            message: "/why".into(),
        });
        let rules = resolve(&said).unwrap();
        assert!(rules.headers.contains(&"x-job".to_owned()));
        assert_eq!(rules.failures.len(), FailureRule::builtin().len() + 1);

        let wrong = |change: fn(&mut said::Operations), want: &str| {
            let mut said = said::Operations::default();
            change(&mut said);
            let message = resolve(&said).unwrap_err().message;
            assert!(message.contains(want), "{message}");
        };
        wrong(|s| s.headers.push("X Job".into()), "no header name");
        wrong(|s| s.headers = vec!["a".into(); 9], "at most 8");
        wrong(|s| s.keys.push("/data/id".into()), "last part only");
        wrong(|s| s.id_prefixes.push("a".into()), "at least two");
        wrong(|s| s.failures.push(said::Failure::default()), "begins with /");
        wrong(|s| s.stuck_after = crate::settings::values::Period::millis(0), "longer than 0");
    }
}
