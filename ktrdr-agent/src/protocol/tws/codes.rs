//! IB's message codes in plain words
//! (<https://ibkrcampus.com/campus/ibkr-api-page/twsapi-doc/#api-error-codes>).

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Good news, or none.
    Info,
    /// The request goes on, or may be tried again as it is.
    Warning,
    /// The request failed.
    Error,
    /// The session is unusable.
    Fatal,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        }
    }
}

/// A code, explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub severity: Severity,
    /// What it means, for a person who does not know the code.
    pub meaning: &'static str,
    /// A request with this code is over.
    pub ends: bool,
}

const fn ends(severity: Severity, meaning: &'static str) -> Code {
    Code { severity, meaning, ends: true }
}

const fn goes_on(severity: Severity, meaning: &'static str) -> Code {
    Code { severity, meaning, ends: false }
}

use Severity::{Error, Fatal, Info, Warning};

/// Explains a code; `text` tells the many uses of some of them apart.
pub(super) fn explain(code: i64, text: &str) -> Code {
    match code {
        100 => ends(Warning, "more than 50 messages per second were sent"),
        101 => ends(Error, "too many market data subscriptions at once"),
        102 => ends(Error, "the request id is in use already"),
        103 => ends(Error, "the order id is in use already"),
        162 => historical(text),
        165 => goes_on(Info, "a message of the historical data service"),
        166 => ends(Error, "IB does not know the expired contract"),
        200 => ends(Error, "IB knows no such contract, or the description fits several"),
        201 => ends(Error, "the order was rejected"),
        202 => ends(Warning, "the order was cancelled"),
        300 => ends(Warning, "there is no such market data subscription (any more)"),
        309 => ends(Error, "too many market depth requests at once"),
        320 | 321 => ends(Error, "the gateway found the request invalid"),
        322 => ends(Error, "the gateway failed on the request; the request id may be in use"),
        326 => ends(Fatal, "another program is connected with the same client id"),
        354 => ends(Error, "the account is not subscribed to this market data"),
        366 => ends(Warning, "the historical request is not known (any more)"),
        399 | 404 | 434 | 492 => goes_on(Warning, "a note on an order; it stays in place"),
        420 => ends(Warning, "too many requests in a short time (pacing), or no permission for this data"),
        430 => ends(Error, "no fundamental data for this contract"),
        // IB's clients also make 501 to 507 themselves when the socket fails.
        502 => ends(Fatal, "the gateway could not be connected to"),
        503 => ends(Fatal, "the gateway is too old for this request"),
        504 => ends(Fatal, "there is no connection to the gateway"),
        505 => ends(Error, "the gateway does not know this message"),
        507 => ends(Fatal, "the gateway closed the connection; the client id may be in use"),
        509 => ends(Fatal, "the socket failed"),
        1100 => goes_on(Fatal, "the gateway lost its connection to IB"),
        1101 => goes_on(Warning, "the gateway's connection to IB is back; subscriptions are lost"),
        1102 => goes_on(Info, "the gateway's connection to IB is back; subscriptions go on"),
        1300 => goes_on(Fatal, "the gateway's socket port was changed; connect again"),
        2103 => goes_on(Warning, "a market data farm is not connected"),
        2104 => goes_on(Info, "a market data farm is connected"),
        2105 => goes_on(Warning, "a historical data farm is not connected"),
        2106 => goes_on(Info, "a historical data farm is connected"),
        2107 | 2108 => goes_on(Info, "a data farm sleeps and will connect when asked"),
        2110 => goes_on(Warning, "the gateway's connection to IB is broken; it will be restored by itself"),
        2119 => goes_on(Info, "a data farm is connecting"),
        2157 => goes_on(Warning, "the contract data farm is not connected"),
        2158 => goes_on(Info, "the contract data farm is connected"),
        2174 | 2176 => goes_on(Warning, "a date without a time zone, or a rounded size"),
        2100..=2199 => goes_on(Warning, "a warning; the request goes on"),
        10089..=10091 | 10168 | 10186 | 10189 | 10190 => {
            ends(Error, "the account has no permission for this market data")
        }
        10147 | 10148 => ends(Warning, "there is no such order (any more)"),
        10167 => goes_on(Warning, "no permission for live data: delayed data comes instead"),
        10187 | 10188 => ends(Error, "historical ticks failed, or no permission for them"),
        10197 => ends(Error, "another session of the same user gets the market data"),
        10314 => ends(Error, "the end date is not in a form that IB takes"),
        _ => ends(Error, ""),
    }
}

/// 162 says little without its text.
fn historical(text: &str) -> Code {
    let text = text.to_ascii_lowercase();
    let has = |word: &str| text.contains(word);
    if has("pacing") {
        ends(Warning, "too many historical requests in a short time (pacing): wait and try again")
    } else if has("cancel") {
        ends(Warning, "the historical request was cancelled by the client")
    } else if has("no data") {
        ends(Error, "IB has no data for this contract and time")
    } else if has("permission") {
        ends(Error, "the account has no permission for this data")
    } else if has("different ip") {
        ends(Error, "the same user is logged in from another address")
    } else {
        ends(Error, "the historical data service refused the request (pacing is possible)")
    }
}

/// What a message without a request id does to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The link between gateway and IB is down.
    Down,
    /// It is back.
    Up,
    /// A data farm is not to be had.
    FarmDown,
    /// A data farm is fine.
    FarmUp,
    /// None.
    None,
}

/// The effect of a code.
pub(super) fn effect(code: i64) -> Effect {
    match code {
        1100 | 2110 => Effect::Down,
        1101 | 1102 => Effect::Up,
        2103 | 2105 | 2157 => Effect::FarmDown,
        2104 | 2106 | 2107 | 2108 | 2158 => Effect::FarmUp,
        _ => Effect::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_news_is_no_error_and_162_depends_on_its_text() {
        for code in [2104, 2106, 2107, 2108, 2119, 2158, 1102] {
            let said = explain(code, "");
            assert_eq!((said.severity, said.ends), (Info, false), "{code}");
        }
        for (text, word) in [
            (
                "Historical Market Data Service error message:Historical data request pacing violation",
                "pacing",
            ),
            ("Historical Market Data Service error message:HMDS query returned no data: X@SMART", "no data"),
            (
                "Historical Market Data Service error message:API historical data query cancelled: 7",
                "cancelled",
            ),
            (
                "Historical Market Data Service error message:No market data permissions for NYSE",
                "permission",
            ),
        ] {
            assert!(explain(162, text).meaning.contains(word), "{text}");
        }
        assert!(explain(200, "").ends && explain(123_456, "").ends);
        assert!(!explain(2174, "").ends);
    }
}
