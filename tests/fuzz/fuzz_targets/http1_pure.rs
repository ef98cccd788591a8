//! Route templates and `traceparent` from any text.
#![no_main]

use ktrdr_agent::protocol::http1::route::template;
use ktrdr_agent::protocol::parse_traceparent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    parse_traceparent(input);
    if let Ok(path) = std::str::from_utf8(input) {
        let once = template(path).into_owned();
        assert_eq!(template(&once), once, "a template is its own template");
    }
});
