//! The protocol of the Interactive Brokers API (TWS and IB Gateway): length-prefixed frames of NUL-ended text fields.
//!
//! Layouts are those that `ib_async` 2.1 and `ib_insync` 0.9.86 read and write (server versions 157 to 178). From
//! server version 201 on, ids are binary and bodies may be protobuf: such frames are told apart, counted as requests
//! that expect nothing, and skipped; their answers are not paired.
//!
//! What ends a request:
//! - its answer, or the message that closes a list of answers (`contractDetailsEnd`);
//! - an error with its request id that is no mere warning;
//! - its cancellation by the client, if nothing came before that (`ktrdr.incomplete` = `cancelled`);
//! - the end of the connection.
//!
//! An error without a request id concerns the session: while `startApi` is open, a fatal one (326, client id in use)
//! answers it; otherwise it is an event on every open request, and a lost link to IB or a broken data farm stays an
//! attribute (`ib.session.state`, `ib.session.farms_down`) of later requests until the gateway takes it back. News
//! that a farm is fine (2104, 2106, 2158) only do the latter.
//!
//! Where several frames came in one transfer that is longer than what is captured of it, the frames beyond are lost:
//! which requests they answered is not known, so those open then end as `response_lost`, without a verdict. A frame
//! that is merely long (bars) loses nothing, as only its first fields are read.

mod codes;
mod describe;
mod errors;
mod frame;
mod mask;
mod open;
mod parser;
#[cfg(test)]
mod recorded_tests;
mod session;
mod sniff;
mod tables;
#[cfg(test)]
mod tests;

use super::{ConnContext, Parser, Protocol, Sniff};

/// The TWS API.
pub struct Tws;

impl Protocol for Tws {
    fn name(&self) -> &'static str {
        "ib"
    }
    fn sniff(&self, bytes: &[u8]) -> Sniff {
        sniff::sniff(bytes)
    }
    /// Gateway and TWS, live and paper.
    fn ports(&self) -> &'static [u16] {
        &[4001, 4002, 7496, 7497]
    }
    fn parser(&self, context: &ConnContext) -> Box<dyn Parser> {
        Box::new(parser::TwsParser::new(context))
    }
}
