//! Which requests there are, where their ids stand, and what answers them.

/// What is known of a kind of request. Field numbers count from 1, the first behind the message number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Message number.
    pub id: u16,
    /// Name in IB's clients.
    pub name: &'static str,
    /// Text of field 1 where that is a version.
    pub version: Option<&'static str>,
    /// Field of the request id.
    pub req_id: Option<usize>,
    /// What follows the request id.
    pub body: Body,
    /// Whether anything answers it.
    pub answered: bool,
    /// Number of the request that this one takes back.
    pub cancels: Option<u16>,
    /// Fields in all, where every message has as many; they identify the message on an old connection.
    pub fields: Option<usize>,
}

/// What is worth reading behind the request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing.
    None,
    /// A contract of 12 fields.
    Contract,
    /// A contract and the query of `reqHistoricalData`.
    History,
    /// A contract and the query of `reqHeadTimeStamp`.
    HeadTimestamp,
}

/// The handshake, as a request of its own.
pub(super) const HANDSHAKE: u16 = 0;
pub(super) const REQ_ACCOUNT_UPDATES: u16 = 6;
pub(super) const REQ_HISTORICAL_DATA: u16 = 20;
pub(super) const START_API: u16 = 71;

/// Numbers of messages that need more than the tables say.
pub(super) const HISTORICAL_DATA: u16 = 17;
pub(super) const MANAGED_ACCOUNTS: u16 = 15;
pub(super) const ERROR: u16 = 4;

const NONE: Asked = Asked {
    id: 0,
    name: "",
    version: None,
    req_id: None,
    body: Body::None,
    answered: true,
    cancels: None,
    fields: None,
};

/// A request with an id in field 1 (no version) or 2.
const fn keyed(id: u16, name: &'static str, version: Option<&'static str>, body: Body) -> Asked {
    let req_id = Some(if version.is_some() { 2 } else { 1 });
    Asked { id, name, version, req_id, body, ..NONE }
}

/// A request without an id.
const fn plain(id: u16, name: &'static str, version: Option<&'static str>, fields: usize) -> Asked {
    Asked { id, name, version, fields: Some(fields), ..NONE }
}

/// A request that nothing answers.
const fn told(id: u16, name: &'static str, version: Option<&'static str>, fields: usize) -> Asked {
    Asked { answered: false, ..plain(id, name, version, fields) }
}

/// Takes back the request `cancels`.
const fn cancel(id: u16, name: &'static str, version: Option<&'static str>, cancels: u16) -> Asked {
    let fields = Some(if version.is_some() { 2 } else { 1 });
    Asked { answered: false, cancels: Some(cancels), fields, ..keyed(id, name, version, Body::None) }
}

const V1: Option<&str> = Some("1");
const V2: Option<&str> = Some("2");
const V3: Option<&str> = Some("3");

/// The requests of `ib_async` 2.1, by number.
const REQUESTS: &[Asked] = &[
    keyed(1, "reqMktData", Some("11"), Body::Contract),
    cancel(2, "cancelMktData", V2, 1),
    keyed(3, "placeOrder", None, Body::Contract),
    Asked { answered: false, fields: None, ..keyed(4, "cancelOrder", V1, Body::None) },
    plain(5, "reqOpenOrders", V1, 1),
    plain(REQ_ACCOUNT_UPDATES, "reqAccountUpdates", V2, 3),
    keyed(7, "reqExecutions", V3, Body::None),
    plain(8, "reqIds", V1, 2),
    keyed(9, "reqContractDetails", Some("8"), Body::Contract),
    keyed(10, "reqMktDepth", Some("5"), Body::Contract),
    Asked { fields: Some(3), ..cancel(11, "cancelMktDepth", V1, 10) },
    told(12, "reqNewsBulletins", V1, 2),
    told(13, "cancelNewsBulletins", V1, 1),
    told(14, "setServerLogLevel", V1, 2),
    told(15, "reqAutoOpenOrders", V1, 2),
    plain(16, "reqAllOpenOrders", V1, 1),
    plain(17, "reqManagedAccts", V1, 1),
    plain(18, "requestFA", V1, 2),
    told(19, "replaceFA", V1, 4),
    keyed(REQ_HISTORICAL_DATA, "reqHistoricalData", None, Body::History),
    Asked { answered: false, ..keyed(21, "exerciseOptions", V2, Body::None) },
    keyed(22, "reqScannerSubscription", None, Body::None),
    cancel(23, "cancelScannerSubscription", V1, 22),
    plain(24, "reqScannerParameters", V1, 1),
    cancel(25, "cancelHistoricalData", V1, REQ_HISTORICAL_DATA),
    plain(49, "reqCurrentTime", V1, 1),
    keyed(50, "reqRealTimeBars", V3, Body::Contract),
    cancel(51, "cancelRealTimeBars", V1, 50),
    keyed(52, "reqFundamentalData", V2, Body::None),
    cancel(53, "cancelFundamentalData", V1, 52),
    keyed(54, "calculateImpliedVolatility", V3, Body::Contract),
    keyed(55, "calculateOptionPrice", V3, Body::Contract),
    cancel(56, "cancelCalculateImpliedVolatility", V1, 54),
    cancel(57, "cancelCalculateOptionPrice", V1, 55),
    told(58, "reqGlobalCancel", V1, 1),
    told(59, "reqMarketDataType", V1, 2),
    plain(61, "reqPositions", V1, 1),
    keyed(62, "reqAccountSummary", V1, Body::None),
    cancel(63, "cancelAccountSummary", V1, 62),
    Asked { req_id: None, fields: Some(1), ..cancel(64, "cancelPositions", V1, 61) },
    plain(START_API, "startApi", V2, 3),
    keyed(74, "reqPositionsMulti", V1, Body::None),
    cancel(75, "cancelPositionsMulti", V1, 74),
    keyed(76, "reqAccountUpdatesMulti", V1, Body::None),
    cancel(77, "cancelAccountUpdatesMulti", V1, 76),
    keyed(78, "reqSecDefOptParams", None, Body::None),
    keyed(79, "reqSoftDollarTiers", None, Body::None),
    plain(80, "reqFamilyCodes", None, 0),
    keyed(81, "reqMatchingSymbols", None, Body::None),
    plain(82, "reqMktDepthExchanges", None, 0),
    keyed(83, "reqSmartComponents", None, Body::None),
    keyed(84, "reqNewsArticle", None, Body::None),
    plain(85, "reqNewsProviders", None, 0),
    keyed(86, "reqHistoricalNews", None, Body::None),
    keyed(87, "reqHeadTimeStamp", None, Body::HeadTimestamp),
    keyed(88, "reqHistogramData", None, Body::Contract),
    cancel(89, "cancelHistogramData", None, 88),
    cancel(90, "cancelHeadTimeStamp", None, 87),
    keyed(91, "reqMarketRule", None, Body::None),
    keyed(92, "reqPnL", None, Body::None),
    cancel(93, "cancelPnL", None, 92),
    keyed(94, "reqPnLSingle", None, Body::None),
    cancel(95, "cancelPnLSingle", None, 94),
    keyed(96, "reqHistoricalTicks", None, Body::Contract),
    keyed(97, "reqTickByTickData", None, Body::Contract),
    cancel(98, "cancelTickByTickData", None, 97),
    plain(99, "reqCompletedOrders", None, 1),
    keyed(100, "reqWshMetaData", None, Body::None),
    cancel(101, "cancelWshMetaData", None, 100),
    keyed(102, "reqWshEventData", None, Body::None),
    cancel(103, "cancelWshEventData", None, 102),
    keyed(104, "reqUserInfo", None, Body::None),
];

/// The request with a number.
pub(super) fn request(id: u16) -> Option<&'static Asked> {
    REQUESTS.binary_search_by_key(&id, |r| r.id).ok().map(|at| &REQUESTS[at])
}

/// What a message answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Message number.
    pub id: u16,
    /// Number of the request.
    pub to: u16,
    /// Field of the request id.
    pub req_id: Option<usize>,
    /// Nothing more belongs to the answer (for a subscription: its first data).
    pub last: bool,
}

const fn last(id: u16, to: u16, req_id: usize) -> Answer {
    Answer { id, to, req_id: if req_id == 0 { None } else { Some(req_id) }, last: true }
}

const fn part(id: u16, to: u16, req_id: usize) -> Answer {
    Answer { last: false, ..last(id, to, req_id) }
}

/// By number of the message. Third: field of the request id, 0 = it has none.
const ANSWERS: &[Answer] = &[
    last(1, 1, 2),
    last(2, 1, 2),
    last(3, 3, 1),
    last(5, 3, 1),
    part(5, 5, 0),
    part(5, 16, 0),
    part(6, REQ_ACCOUNT_UPDATES, 0),
    part(7, REQ_ACCOUNT_UPDATES, 0),
    last(9, START_API, 0),
    last(9, 8, 0),
    // The version in front of the id went with server version 164; see `parser`.
    part(10, 9, 2),
    part(11, 7, 1),
    last(12, 10, 2),
    last(13, 10, 2),
    part(MANAGED_ACCOUNTS, START_API, 0),
    last(MANAGED_ACCOUNTS, 17, 0),
    last(16, 18, 0),
    last(HISTORICAL_DATA, REQ_HISTORICAL_DATA, 1),
    part(18, 9, 2),
    last(19, 24, 0),
    last(20, 22, 2),
    last(21, 54, 1),
    last(21, 55, 1),
    last(45, 1, 2),
    last(46, 1, 2),
    last(49, 49, 0),
    last(50, 50, 2),
    last(51, 52, 2),
    last(52, 9, 2),
    last(53, 5, 0),
    last(53, 16, 0),
    last(54, REQ_ACCOUNT_UPDATES, 0),
    last(55, 7, 2),
    last(57, 1, 2),
    part(61, 61, 0),
    last(62, 61, 0),
    part(63, 62, 2),
    last(64, 62, 2),
    part(71, 74, 2),
    last(72, 74, 2),
    part(73, 76, 2),
    last(74, 76, 2),
    part(75, 78, 1),
    last(76, 78, 1),
    last(77, 79, 1),
    last(78, 80, 0),
    last(79, 81, 1),
    last(80, 82, 0),
    last(82, 83, 1),
    last(83, 84, 1),
    last(85, 85, 0),
    part(86, 86, 1),
    last(87, 86, 1),
    last(88, 87, 1),
    last(89, 88, 1),
    last(93, 91, 1),
    last(94, 92, 1),
    last(95, 94, 1),
    last(96, 96, 1),
    last(97, 96, 1),
    last(98, 96, 1),
    last(99, 97, 1),
    part(101, 99, 0),
    last(102, 99, 0),
    last(104, 100, 1),
    last(105, 102, 1),
    // `reqHistoricalData` for SCHEDULE.
    last(106, REQ_HISTORICAL_DATA, 1),
    last(107, 104, 1),
];

/// What a message may answer.
pub(super) fn answers(id: u16) -> &'static [Answer] {
    let from = ANSWERS.partition_point(|a| a.id < id);
    let to = ANSWERS.partition_point(|a| a.id <= id);
    &ANSWERS[from..to]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order_and_agree() {
        assert!(REQUESTS.windows(2).all(|w| w[0].id < w[1].id));
        assert!(ANSWERS.windows(2).all(|w| w[0].id <= w[1].id));
        for request in REQUESTS {
            let answers: Vec<_> = ANSWERS.iter().filter(|a| a.to == request.id).collect();
            assert_eq!(answers.iter().any(|a| a.last), request.answered, "{}", request.name);
            for answer in answers {
                assert!(answer.req_id.is_none() || request.req_id.is_some(), "{}", request.name);
            }
            if let Some(cancelled) = request.cancels {
                let cancelled = super::request(cancelled).unwrap();
                assert_eq!(cancelled.req_id.is_some(), request.req_id.is_some(), "{}", request.name);
                assert_eq!(request.name.strip_prefix("cancel").map(str::to_lowercase), {
                    let name = cancelled.name;
                    Some(name.strip_prefix("req").unwrap_or(name).to_lowercase())
                });
            }
        }
    }
}
