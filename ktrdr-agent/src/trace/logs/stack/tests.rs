//! Stack traces as the runtimes print them.

use super::*;

/// Every line of the text belongs to one record.
fn is_one_record(text: &str) {
    let mut lines = text.lines();
    let mut stack = Stack::begin(lines.next().unwrap());
    for line in lines {
        assert!(stack.takes(line), "`{line}` left the record in {stack:?}:\n{text}");
    }
    assert!(!stack.takes("an unrelated line"), "{stack:?} takes anything:\n{text}");
}

fn thrown_in(text: &str) -> (String, String) {
    let (_, e) = exception(text).unwrap_or_else(|| panic!("no exception in {text}"));
    (e.kind, e.message)
}

const SIMPLE: &str = "Traceback (most recent call last):
  File \"/srv/a.py\", line 3, in f
    return 1 / x
           ~~^~~
ZeroDivisionError: division by zero";

const CHAINED: &str = "Traceback (most recent call last):
  File \"/srv/a.py\", line 3, in f
    return 1 / x
           ~~^~~
ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File \"/srv/a.py\", line 8, in <module>
    raise TrainingError(\"epoch 3\") from e
ktrdr.errors.TrainingError: epoch 3";

const GROUP: &str = "  + Exception Group Traceback (most recent call last):
  |   File \"/srv/a.py\", line 12, in <module>
  |     raise ExceptionGroup(\"two\", [ValueError(1), TypeError(2)])
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +---------------- 2 ----------------
    | TypeError: 2
    +------------------------------------";

const NODE: &str = "TypeError: Cannot read properties of undefined (reading 'x')
    at f (/srv/a.js:2:11)
    at Object.<anonymous> (/srv/a.js:4:1)
    at Module._compile (node:internal/modules/cjs/loader:1105:14)";

const JAVA: &str = "Exception in thread \"main\" java.lang.IllegalStateException: no gateway
\tat a.b.C.d(C.java:12)
\tat a.b.C.main(C.java:5)
Caused by: java.io.IOException: refused
\tat a.b.C.e(C.java:30)
\t... 1 more";

const GO: &str = "panic: runtime error: index out of range [3] with length 1

goroutine 1 [running]:
main.f(0x3)
\t/srv/main.go:6 +0x1d
main.main()
\t/srv/main.go:10 +0x1a
exit status 2";

const RUST: &str = "thread 'main' panicked at src/main.rs:2:5:
the queue is empty
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";

const RUST_OLD: &str = "thread 'main' panicked at 'it's over', src/main.rs:2:5
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";

#[test]
fn each_is_one_record() {
    for text in [SIMPLE, CHAINED, JAVA, RUST] {
        is_one_record(text);
    }
    is_one_record(&format!(
        "Task exception was never retrieved\nfuture: <Task finished name='Task-2'>\n{CHAINED}"
    ));
    is_one_record(&format!("Exception in thread Thread-1 (work):\n{SIMPLE}"));
    is_one_record(GO.strip_suffix("\nexit status 2").unwrap());
    is_one_record(&format!("Uncaught {NODE}"));
}

#[test]
fn what_was_thrown_last_counts() {
    let is = |text: &str, kind: &str, message: &str| {
        assert_eq!(thrown_in(text), (kind.to_owned(), message.to_owned()), "{text}");
    };
    is(SIMPLE, "ZeroDivisionError", "division by zero");
    is(CHAINED, "ktrdr.errors.TrainingError", "epoch 3");
    is(GROUP, "ExceptionGroup", "two (2 sub-exceptions)");
    is(NODE, "TypeError", "Cannot read properties of undefined (reading 'x')");
    is(JAVA, "java.lang.IllegalStateException", "no gateway");
    is(GO, "panic", "runtime error: index out of range [3] with length 1");
    is(RUST, "panic", "the queue is empty");
    is(RUST_OLD, "panic", "it's over");
    is(&SIMPLE.replace("ZeroDivisionError: division by zero", "KeyboardInterrupt"), "KeyboardInterrupt", "");
    is(&format!("{SIMPLE}\nsecond line"), "ZeroDivisionError", "division by zero\nsecond line");
}

#[test]
fn the_logger_s_words_stay_before_the_trace() {
    let text = format!("Operation op_1 failed\n{CHAINED}\n");
    let (before, e) = exception(&text).unwrap();
    assert_eq!((before, e.stack.as_str()), ("Operation op_1 failed", CHAINED));
    assert_eq!(e.summary(), "ktrdr.errors.TrainingError: epoch 3");
}

#[test]
fn other_text_throws_nothing() {
    for text in
        ["", "all is well", "Traceback", "at the end\n  at noon", "panic button pressed", "a: b\nc: d"]
    {
        assert_eq!(exception(text), None, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_it(text in "(Traceback \\(most recent call last\\):|  at x|[a-z: ]{0,9}|  \\| |panic: |\n|\u{e9}){0,30}") {
        if let Some((before, e)) = exception(&text) {
            proptest::prop_assert!(text.starts_with(before) && text.contains(&e.stack));
        }
        let mut stack = Stack::default();
        text.lines().for_each(|l| { stack.takes(l); });
    }
}
