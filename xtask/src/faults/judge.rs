//! Whether `explain` named the true cause first.

use serde_json::Value;

use super::table::Expected;

/// What is wrong with a report; none if nothing is.
pub fn wrong(report: &Value, expected: &Expected) -> Option<String> {
    let verdict = &report["verdict"];
    let text = |key: &str| verdict[key].as_str().unwrap_or_default();
    let kind = text("kind");
    if !expected.kinds.contains(&kind) {
        return Some(format!("kind is {kind}, not {}", expected.kinds.join(" or ")));
    }
    for (key, wanted) in [("service", expected.service), ("peer", expected.peer)] {
        if !wanted.is_empty() && text(key) != wanted {
            return Some(format!("{key} is `{}`, not `{wanted}`", text(key)));
        }
    }
    let sentence = text("sentence");
    let missing = expected.says.iter().find(|part| !sentence.contains(**part))?;
    Some(format!("the sentence lacks `{missing}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_expectation_counts() {
        let report = serde_json::json!({"verdict": {"kind": "refused", "service": "a", "peer": "b:1",
            "sentence": "a could not connect to b"}});
        let expected = |kind, service, peer, says| Expected { kinds: kind, service, peer, says };
        assert_eq!(wrong(&report, &expected(&["refused"], "a", "b:1", &["connect to b"])), None);
        assert_eq!(wrong(&report, &expected(&["reset", "refused"], "", "", &[])), None);
        for bad in [
            expected(&["reset"], "", "", &[]),
            expected(&["refused"], "b", "", &[]),
            expected(&["refused"], "a", "b:2", &[]),
            expected(&["refused"], "", "", &["nothing listens"]),
        ] {
            assert!(wrong(&report, &bad).is_some());
        }
        assert!(wrong(&Value::Null, &expected(&["refused"], "", "", &[])).is_some());
    }
}
