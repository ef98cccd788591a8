//! What is masked, what is not, and the laws of it.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N";

#[test]
fn masks_values_of_secret_parameters_only() {
    let mask = Mask::default();
    for (given, masked) in [
        ("a=1&token=abc&b=2", "a=1&token=REDACTED&b=2"),
        ("access_token=abc", "access_token=REDACTED"),
        ("API-Key=abc&api_key=d", "API-Key=REDACTED&api_key=REDACTED"),
        ("X-Amz-Signature=0f&X-Amz-Date=1", "X-Amz-Signature=REDACTED&X-Amz-Date=1"),
        ("sig=a%2Fb&password=x&AWSAccessKeyId=y", "sig=REDACTED&password=REDACTED&AWSAccessKeyId=REDACTED"),
        ("t%6Fken=abc", "t%6Fken=REDACTED"),
        ("key=a=b&session_id=1", "key=REDACTED&session_id=REDACTED"),
    ] {
        assert_eq!(mask.query(given), masked);
    }
    for harmless in
        ["", "a=1&b", "symbol=AAPL&timeframe=1h", "keyword=x&design=y&author=z", "token=", "token"]
    {
        assert!(matches!(mask.query(harmless), Cow::Borrowed(same) if same == harmless), "{harmless}");
    }
}

#[test]
fn drops_user_information() {
    assert_eq!(authority("user:pa@ss@host:1"), "host:1");
    assert_eq!(authority("host:1"), "host:1");
}

#[test]
fn masks_secrets_in_text_by_their_names() {
    let mask = Mask::default();
    for (given, masked) in [
        ("login with password=hunter2 failed", "login with password=REDACTED failed"),
        ("password: hunter", "password: REDACTED"),
        (r#"{"user":"a","apiKey":"k\"1","n":1}"#, r#"{"user":"a","apiKey":"REDACTED","n":1}"#),
        (r#"{\"password\": \"x y\", \"n\": 1}"#, r#"{\"password\": \"REDACTED\", \"n\": 1}"#),
        ("{'client_secret': 'a b', 'x': 1}", "{'client_secret': 'REDACTED', 'x': 1}"),
        (r#""secrets": ["a", "b"], "x": 1"#, r#""secrets": REDACTED, "x": 1"#),
        ("Authorization: Basic dXNlcjpwYXNz\r\nHost: x", "Authorization: REDACTED\r\nHost: x"),
        ("Set-Cookie: id=1; Path=/", "Set-Cookie: REDACTED"),
        ("-H 'X-Api-Key: abc' -v", "-H 'X-Api-Key: REDACTED' -v"),
        ("token: tok3nvalue and more", "token: REDACTED and more"),
        ("postgres://app:s3cret@db:5432/x", "postgres://REDACTED@db:5432/x"),
        ("GET /a?token=abc&b=c HTTP/1.1", "GET /a?token=REDACTED&b=c HTTP/1.1"),
        (r#"{"password":"cut off her"#, r#"{"password":"REDACTED"#),
        ("DB_PASSWORD=x python app.py", "DB_PASSWORD=REDACTED python app.py"),
    ] {
        assert_eq!(mask.text(given), masked);
        assert_eq!(mask.text(masked), masked, "twice");
    }
}

#[test]
fn masks_secrets_by_their_shape() {
    let mask = Mask::default();
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----";
    let pat = format!("ghp_{}", "a1B2".repeat(9));
    for secret in [
        JWT,
        "AKIAIOSFODNN7EXAMPLE",
        "sk-proj-abcDEF0123456789xyz",
        "xoxb-1234567890-abc",
        &pat,
        key,
        "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    ] {
        let text = format!("before {secret} after");
        assert_eq!(mask.text(&text), "before REDACTED after");
    }
    assert_eq!(mask.text("sent Bearer abcdef123456, got 401"), "sent Bearer REDACTED, got 401");
}

#[test]
fn leaves_everyday_text_alone() {
    let mask = Mask::default();
    for text in [
        "Basic authentication is required",
        "Unexpected token: '}' at line 3",
        "invalid token: expected a number",
        r#"{"max_tokens":4096,"usage":{"input_tokens":12},"session_id":"training_1","code":-32602,"key":"AAPL"}"#,
        "exit code: 1",
        "PWD=/srv/app",
        "https://example.com:8000/a@b?c=d",
        "Using selector: EpollSelector",
        "sk-learn-extras-package",
        "keyword=x author: y",
        "auth: true",
        "2025-11-13 10:00:00,123 ERROR ktrdr.api: op_data_load_20251113_1a2b failed: No data for AAPL",
        "",
    ] {
        assert!(matches!(mask.text(text), Cow::Borrowed(same) if same == text), "{}", mask.text(text));
    }
}

#[test]
fn masks_command_lines() {
    let mask = Mask::default();
    let args = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    for (given, masked) in [
        ("ktrdr login --token abc --verbose", "ktrdr login --token REDACTED --verbose"),
        ("ktrdr login --api-key=a=b x", "ktrdr login --api-key=REDACTED x"),
        (
            "/usr/bin/curl -u me:pw http://a:b@h/?token=x",
            "/usr/bin/curl -u me:REDACTED http://REDACTED@h/?token=REDACTED",
        ),
        ("curl -b id=x -bid=y h", "curl -b REDACTED -bREDACTED h"),
        ("curl -ume:pw h", "curl -ume:REDACTED h"),
        ("mysql -pabc -h db", "mysql -pREDACTED -h db"),
        ("env PGPASSWORD=x psql", "env PGPASSWORD=REDACTED psql"),
        ("python -u -m ktrdr", "python -u -m ktrdr"),
        ("docker run -u 1000:1000 x", "docker run -u 1000:1000 x"),
        ("uvicorn app:app --port 8000 --no-access-log", "uvicorn app:app --port 8000 --no-access-log"),
        ("x --password --verbose", "x --password --verbose"),
    ] {
        assert_eq!(mask.args(&args(given)), args(masked));
        assert_eq!(mask.args(&args(masked)), args(masked), "twice");
    }
}

#[test]
fn the_configuration_adds_and_takes_away() {
    let own = |s: &str| vec![s.to_owned()];
    let mask = Mask::new(&own("account_no"), &own("page_token"), &own(r"\bDU(\d{7})\b")).unwrap();
    assert_eq!(
        mask.text("account-no=17 page_token=x DU1234567"),
        "account-no=REDACTED page_token=x DUREDACTED"
    );
    assert_eq!(mask.query("accountNo=17&page_token=x"), "accountNo=REDACTED&page_token=x");
    for (bad, why) in [("(", "not a regular expression"), ("x*", "empty text")] {
        assert!(Mask::new(&[], &[], &own(bad)).unwrap_err().contains(why));
    }
    assert!(Mask::new(&[], &[], &vec!["x".to_owned(); 65]).is_err());
}

/// A text of pieces that concern the rules, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("password"),
        Just("Authorization"),
        Just("token"),
        Just("cookie"),
        Just("="),
        Just(": "),
        Just(":"),
        Just("\""),
        Just("'"),
        Just("\\"),
        Just("{"),
        Just("["),
        Just("]"),
        Just(" "),
        Just("\n"),
        Just("&"),
        Just("Bearer "),
        Just("://"),
        Just("@"),
        Just("é"),
        Just("x1Y2z3w4"),
        Just(JWT),
        Just("REDACTED"),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|p| p.concat())
}

proptest! {
    #[test]
    fn any_text_is_masked_once_and_for_all(text in prop_oneof![pieces(), any::<String>()]) {
        let mask = Mask::default();
        let once = mask.text(&text).into_owned();
        prop_assert!(!once.contains(JWT));
        // Where a masked value ends is not seen any more, so a second pass may take a word more with it. It goes on that
        // way, if at all: masked again and again a text comes to rest, for each pass takes at least a word.
        let mut now = once;
        for left in (0..=text.len()).rev() {
            let next = mask.text(&now).into_owned();
            if next == now {
                break;
            }
            prop_assert!(left > 0, "{now:?}");
            now = next;
        }
        let _ = (mask.query(&text), mask.args(&[text.clone(), text.clone()]));
    }

    #[test]
    fn a_secret_behind_its_name_is_gone(
        name in prop_oneof![Just("password"), Just("api_key"), Just("X-Auth-Token"), Just("clientSecret")],
        form in 0..6usize,
        secret in "[A-Za-z0-9!$%*+./^_~-]{12,40}",
        before in "[ -~]{0,20}",
    ) {
        prop_assume!(super::shapes::looks_random(&secret));
        let text = match form {
            0 => format!("{before} {name}={secret}"),
            1 => format!("{before} {name}: {secret} after"),
            2 => format!("{before} {{\"{name}\": \"{secret}\"}}"),
            3 => format!("{before} {{'{name}':'{secret}'}}"),
            4 => format!("{before}?a=b&{name}={secret}&c=d"),
            _ => format!("{before} {name} = '{secret}'"),
        };
        let masked = Mask::default().text(&text).into_owned();
        prop_assert!(!masked.contains(&secret), "{} -> {}", text, masked);
    }
}
