//! Requests and responses of one connection, paired in order or by key. A gap never shifts the order by one: what
//! was open at a gap stays unpaired.

use std::collections::VecDeque;

use super::Numbers;
use super::half::{Boundary, Mark};
use crate::event::Ns;
use crate::protocol::{Message, MessageEnd, ParseEvent, Request, Response, Side, TraceContext};
use crate::trace::causality::SpanRef;
use crate::trace::model::SpanEvent;

/// Open exchanges per connection. Pipelining clients keep tens, HTTP/2 connections a hundred streams by default
/// (RFC 9113 §6.5.2); beyond, the oldest is given up and counted.
const MAX_OPEN: usize = 1024;
/// Interim responses kept per exchange: a server may send any number (OpenTelemetry SDKs keep 128 events, too).
const MAX_EVENTS: usize = 128;

/// A request and, once it came, its response.
#[derive(Debug)]
pub struct Exchange {
    /// Its span.
    pub span: SpanRef,
    /// The request.
    pub request: Box<Request>,
    /// First byte of the request.
    pub start: Mark,
    /// Last byte of the request, once it ended.
    pub request_end: Option<Ns>,
    /// The response.
    pub response: Option<Box<Response>>,
    /// First byte of the response.
    pub response_start: Option<Mark>,
    /// Last byte seen of either.
    pub end: Ns,
    /// Interim responses.
    pub events: Vec<SpanEvent>,
    /// Sample of the request's body.
    pub request_body: Option<Vec<u8>>,
    /// Sample of the response's body.
    pub response_body: Option<Vec<u8>>,
    /// Why it is not whole, if it is not.
    pub incomplete: Option<&'static str>,
    /// How the connection ended, if that was in the middle of the response.
    pub cut: Option<&'static str>,
}

/// A request whose head is known.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// Its span.
    pub span: SpanRef,
    /// First byte of the request.
    pub start: Mark,
    /// The transfer that completed its head.
    pub head: Mark,
    /// A trace context on the wire.
    pub context: Option<TraceContext>,
    /// Hash of its head, where that was seen whole.
    pub digest: Option<u64>,
}

/// What the pairing reports.
#[derive(Debug)]
pub enum Paired {
    /// A request's head is known.
    Began(Began),
    /// The request ended, and a sample of its body was kept.
    Read(SpanRef),
    /// The first bytes of its response moved.
    Answered(SpanRef, Mark),
    /// The first bytes of a response moved, and which request it answers is not known.
    Unasked(Mark),
    /// It is over.
    Done(Box<Exchange>),
}

/// Open exchanges of one connection, oldest first.
#[derive(Debug, Default)]
pub struct Pairing {
    open: VecDeque<Box<Exchange>>,
    /// Exchanges of `open`, from the front, that may still be paired; behind them order is not known.
    trusted: Option<usize>,
    /// More than one request was open at once: after a gap, responses cannot be told apart any more.
    pipelined: bool,
    /// A response passed since the order was lost.
    answered_since: bool,
    /// The exchange whose response is under way.
    responding: Option<SpanRef>,
    /// Bytes of the response under way were lost.
    lossy: bool,
    /// A response came that belongs to nothing known.
    pub unpaired_responses: u64,
    /// Requests given up because too many were open.
    pub given_up: u64,
}

impl Pairing {
    /// Takes a boundary of one side.
    pub fn boundary(&mut self, side: Side, b: Boundary, numbers: &mut Numbers, out: &mut Vec<Paired>) {
        let Boundary { event, start, end, sample, digest } = b;
        match event {
            ParseEvent::Begin(m) => self.begin(m, (start, end, digest), numbers, out),
            ParseEvent::End(e) => self.end(side, e, end, sample, out),
            ParseEvent::Whole(m @ Message::Interim(_), _) => self.begin(m, (start, end, None), numbers, out),
            ParseEvent::Whole(m, e) => {
                self.begin(m, (start, end, digest), numbers, out);
                self.end(side, e, end, sample, out);
            }
        }
    }

    /// The order of messages on one side is lost: requests that are open now keep their place only if the loss is
    /// behind them. `answer`: why they have none, if it is the responses' side.
    pub fn lost(&mut self, side: Side, answer: &'static str, out: &mut Vec<Paired>) {
        match side {
            Side::Request => {
                self.trusted = Some(self.trusted.unwrap_or(self.open.len()));
                self.answered_since = false;
            }
            Side::Response => self.response_lost(answer, out),
        }
    }

    /// The response under way still belongs to its request, wherever it ends; all else that is open is void.
    fn response_lost(&mut self, answer: &'static str, out: &mut Vec<Paired>) {
        let Some(span) = self.responding else {
            self.close(None, answer, out);
            return;
        };
        let keep = self.open.iter().position(|x| x.span == span).and_then(|at| self.open.remove(at));
        self.close(None, answer, out);
        self.open.extend(keep);
        self.responding = Some(span);
        self.lossy = true;
    }

    /// Whether bytes of the response under way were lost, so that its end may have been missed.
    pub fn lossy(&self) -> bool {
        self.lossy && self.responding.is_some()
    }

    /// The connection is over at `ts`: everything open is, too.
    pub fn close(&mut self, ts: Option<Ns>, why: &'static str, out: &mut Vec<Paired>) {
        self.trusted = None;
        self.responding = None;
        self.lossy = false;
        for mut x in self.open.drain(..) {
            x.incomplete.get_or_insert(why);
            x.end = ts.unwrap_or(x.end);
            out.push(Paired::Done(x));
        }
    }

    /// Exchanges under way.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Requests under way, oldest first.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.open.iter().map(|x| &*x.request)
    }

    /// The exchange that has been under way for longest.
    pub fn oldest(&self) -> Option<&Exchange> {
        self.open.front().map(|x| &**x)
    }

    /// An exchange under way.
    pub fn get(&self, span: SpanRef) -> Option<&Exchange> {
        self.open.iter().rev().find(|x| x.span == span).map(|x| &**x)
    }

    fn begin(
        &mut self,
        message: Message,
        (start, end, digest): (Mark, Mark, Option<u64>),
        numbers: &mut Numbers,
        out: &mut Vec<Paired>,
    ) {
        match message {
            Message::Request(mut request) => {
                request.attributes.extend(std::mem::take(&mut request.connection));
                self.cancel(request.cancels, end.ts, out);
                self.pipelined |= !self.open.is_empty();
                if self.trusted == Some(0) && self.open.is_empty() && self.answered_since && !self.pipelined {
                    // A client that waits for each answer got the one of the request that was lost: from this
                    // request on the order is known again. A pipelining client's never is.
                    self.trusted = None;
                }
                if self.open.len() >= MAX_OPEN
                    && let Some(mut x) = self.open.pop_front()
                {
                    self.given_up += 1;
                    x.incomplete.get_or_insert("too_many_open");
                    out.push(Paired::Done(x));
                }
                let span = numbers.take();
                let context = request.trace_context;
                self.open.push_back(Box::new(Exchange {
                    span,
                    request,
                    start,
                    request_end: None,
                    response: None,
                    response_start: None,
                    end: end.ts,
                    events: Vec::new(),
                    request_body: None,
                    response_body: None,
                    incomplete: None,
                    cut: None,
                }));
                out.push(Paired::Began(Began { span, start, head: end, context, digest }));
            }
            Message::Interim(interim) => {
                let all = interim.all;
                let event = SpanEvent {
                    ts: start.ts,
                    name: interim.name.into_string().into(),
                    attributes: interim.attributes,
                };
                if all {
                    self.open.iter_mut().for_each(|x| note(x, event.clone()));
                } else if let Some(x) = self.front(interim.key) {
                    note(x, event);
                }
            }
            Message::Response(response) => self.respond(response, start, end, out),
        }
    }

    /// The client gives up the open request with this key.
    fn cancel(&mut self, key: Option<u64>, ts: Ns, out: &mut Vec<Paired>) {
        let Some(at) = key.and_then(|_| self.open.iter().rposition(|x| x.request.key == key)) else { return };
        if self.open.get(at).is_none_or(|x| x.response.is_some()) {
            return;
        }
        let Some(mut x) = self.open.remove(at) else { return };
        if let Some(t) = &mut self.trusted {
            *t = t.saturating_sub(usize::from(at < *t));
        }
        x.incomplete.get_or_insert("cancelled");
        x.end = ts;
        out.push(Paired::Done(x));
    }

    fn respond(&mut self, response: Box<Response>, start: Mark, end: Mark, out: &mut Vec<Paired>) {
        if self.trusted == Some(0) && response.key.is_none() {
            // The answers of requests behind a gap cannot be told apart: give them up together.
            self.unpaired_responses += 1;
            out.push(Paired::Unasked(start));
            self.close(None, "order_lost", out);
            self.trusted = Some(0);
            self.answered_since = true;
            return;
        }
        match self.front(response.key) {
            Some(x) => {
                x.response = Some(response);
                x.response_start = Some(start);
                x.end = end.ts;
                let span = x.span;
                self.responding = Some(span);
                out.push(Paired::Answered(span, start));
            }
            None => {
                self.unpaired_responses += 1;
                self.responding = None;
                out.push(Paired::Unasked(start));
            }
        }
    }

    fn end(&mut self, side: Side, e: MessageEnd, end: Mark, sample: Option<Vec<u8>>, out: &mut Vec<Paired>) {
        match side {
            Side::Request => {
                // Requests of one connection are sent one after the other: the one that ends is the newest.
                if let Some(x) = self.open.back_mut().filter(|x| x.request_end.is_none()) {
                    x.request.attributes.extend(e.attributes);
                    x.request_end = Some(end.ts);
                    x.request_body = sample;
                    if x.request_body.is_some() {
                        out.push(Paired::Read(x.span));
                    }
                    x.incomplete = x.incomplete.or(e.incomplete);
                    x.end = x.end.max(end.ts);
                    if x.request.one_way
                        && let Some(x) = self.open.pop_back()
                    {
                        out.push(Paired::Done(x));
                    }
                }
            }
            Side::Response => {
                self.answered_since = true;
                self.lossy = false;
                let Some(span) = self.responding.take() else { return };
                let Some(at) = self.open.iter().position(|x| x.span == span) else { return };
                let Some(mut x) = self.open.remove(at) else { return };
                if let Some(t) = &mut self.trusted {
                    *t = t.saturating_sub(1);
                }
                if let Some(r) = &mut x.response {
                    r.attributes.extend(e.attributes);
                }
                x.response_body = sample;
                x.incomplete = x.incomplete.or(e.incomplete);
                x.end = end.ts;
                out.push(Paired::Done(x));
            }
        }
    }

    /// The exchange a response with this key belongs to: the oldest one without a response.
    fn front(&mut self, key: Option<u64>) -> Option<&mut Exchange> {
        match key {
            None => self.open.front_mut().map(|x| &mut **x).filter(|x| x.response.is_none()),
            Some(_) => {
                let mut open = self.open.iter_mut().map(|x| &mut **x);
                open.find(|x| x.request.key == key && x.response.is_none())
            }
        }
    }
}

/// Adds an event, as long as there is room.
fn note(x: &mut Exchange, event: SpanEvent) {
    if x.events.len() < MAX_EVENTS {
        x.events.push(event);
    }
}
