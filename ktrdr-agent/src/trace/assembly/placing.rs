//! Where a span hangs: what is evidence of its parent, and which goes before which.

use super::commands::Origins;
use super::{Assembler, GRACE_NS, MAX_DEPTH, Place};
use crate::event::Ns;
use crate::protocol::{Role, TraceContext};
use crate::trace::causality::{Causality, Gap, Method, Origin, Settlement, SpanRef};
use crate::trace::model::{Attributes, Link, Span, TraceId};

/// Outcome of asking for a place.
pub(super) enum Placing {
    Wait,
    /// Its trace is known, what it hangs below is not.
    In(TraceId),
    At(Place),
}

impl Assembler {
    /// Decides where a span hangs, and remembers it.
    pub(super) fn place(&mut self, span: SpanRef, now: Ns, causality: &mut Causality, depth: u32) -> Placing {
        let Some(node) = self.nodes.get(span) else { return Placing::Wait };
        if let Some(place) = node.place {
            return Placing::At(place);
        }
        let own_trace = self.own_trace(node);
        let (role, start, call) = (node.role, node.start, node.call);
        let (context, passed_on, repeats) =
            node.rare.as_deref().map_or((None, None, None), |r| (r.context, r.passed_on, r.repeats));
        let mut above = None;
        let place = match role {
            _ if depth > MAX_DEPTH => root(own_trace),
            Role::Server => match node.other {
                Some(client) => match self.child_of(client, Method::Connection, now, causality, depth) {
                    None => return Placing::Wait,
                    Some(place) => place.below(&mut above, client),
                },
                None if now < start.saturating_add(GRACE_NS) => return Placing::Wait,
                None => match self.relays.across(span).filter(|c| self.nodes.get(*c).is_some()) {
                    None => {
                        let gap = self.relays.may_be_across(span).then_some(Gap::LeftOut);
                        context.map_or(Place { gap, ..root(own_trace) }, from_wire)
                    }
                    Some(client) => match self.child_of(client, Method::Relay, now, causality, depth) {
                        None => return Placing::Wait,
                        Some(place) => place.below(&mut above, client),
                    },
                },
            },
            Role::Client => {
                if let Some(source) = passed_on.filter(|s| self.nodes.get(*s).is_some()) {
                    match self.child_of(source, Method::Relay, now, causality, depth) {
                        None => return Placing::Wait,
                        Some(place) => place.below(&mut above, source),
                    }
                } else if let Some(c) = context {
                    from_wire(c)
                } else {
                    let origin = match call.map(|c| causality.origin(c, now)) {
                        Some(Settlement::Open) => return Placing::Wait,
                        Some(Settlement::Settled(origin)) => origin,
                        None => None,
                    };
                    let gap = call.filter(|_| origin.is_none()).and_then(|c| causality.gap(c));
                    // What is weaker must not tell where what is stronger was not seen: a request that nobody sees may say
                    // the same, ask for the operation or the symbol, too, or start the program.
                    let left_out = gap == Some(Gap::LeftOut);
                    // A request that says the same tells more than that it is the only one.
                    let guessed = !left_out && origin.is_none_or(|o| o.method == Method::SingleInFlight);
                    let repeats = repeats.filter(|o| guessed && self.nodes.get(o.span).is_some());
                    let origin = repeats.or(origin);
                    let ask = origin.is_none() && !left_out;
                    let origin = origin.or_else(|| self.by_operation(span).filter(|_| ask));
                    let origin = match origin {
                        None if ask => self.handoff.origin(span, &self.nodes, &self.created),
                        origin => origin,
                    };
                    let origin = match self.command_of(span, origin, left_out, now, depth) {
                        Origins::At(origin) => origin,
                        Origins::Later => return Placing::Wait,
                        Origins::Leads(command) => {
                            let trace = self.trace_of(command, now, causality, depth);
                            return trace.map_or(Placing::Wait, Placing::In);
                        }
                    };
                    let known = |o: Origin| {
                        let n = self.nodes.get(o.span)?;
                        Some((o, n.span_id, n.end.filter(|_| !n.left)))
                    };
                    match origin.and_then(known) {
                        None => Place { gap, ..root(own_trace) },
                        Some((o, parent, end)) => {
                            let Some(trace_id) = self.trace_of(o.span, now, causality, depth) else {
                                return Placing::Wait;
                            };
                            let over = end.is_some_and(|e| e < start);
                            Place {
                                trace_id,
                                parent: (!over).then_some(parent),
                                follows: over.then_some(parent),
                                method: Some(o.method),
                                gap: None,
                            }
                            .below(&mut above, o.span)
                        }
                    }
                }
            }
        };
        if let Some(node) = self.nodes.get_mut(span) {
            node.place = Some(place);
            node.above = above;
            let under = node.under;
            self.placed_under(under, place.method == Some(Method::Process));
        }
        self.relays.placed(span);
        if let Some(call) = call {
            causality.placed(call);
        }
        Placing::At(place)
    }

    /// The request of the same process that created the operation this call is for.
    fn by_operation(&self, span: SpanRef) -> Option<Origin> {
        let node = self.nodes.get(span)?;
        let creator =
            self.created.by(node.operation.as_ref().or_else(|| node.rare.as_deref()?.hint.as_ref())?)?;
        let created_by = self.nodes.get(creator)?;
        let same = created_by.tgid == node.tgid && created_by.role == Role::Server && creator != span;
        same.then_some(Origin { span: creator, method: Method::OperationId })
    }

    /// The place of a child of `parent`, once that one's is known.
    fn child_of(
        &mut self,
        parent: SpanRef,
        method: Method,
        now: Ns,
        causality: &mut Causality,
        depth: u32,
    ) -> Option<Place> {
        let trace_id = self.trace_of(parent, now, causality, depth)?;
        let parent = self.nodes.get(parent).map(|p| p.span_id);
        Some(Place { trace_id, parent, follows: None, method: Some(method), gap: None })
    }

    pub(super) fn trace_of(
        &mut self,
        span: SpanRef,
        now: Ns,
        causality: &mut Causality,
        depth: u32,
    ) -> Option<TraceId> {
        match self.place(span, now, causality, depth + 1) {
            Placing::At(place) => Some(place.trace_id),
            Placing::In(trace_id) => Some(trace_id),
            Placing::Wait => None,
        }
    }
}

impl Place {
    /// Writes it on the span.
    pub(super) fn put(self, s: &mut Span) {
        s.trace_id = self.trace_id;
        s.parent_span_id = self.parent;
        if let Some(method) = self.method {
            s.attributes.set("ktrdr.link.method", method.name());
            s.attributes.set("ktrdr.link.certainty", if method.exact() { "exact" } else { "inferred" });
        }
        if let Some(gap) = self.gap {
            s.attributes.set("ktrdr.link.missing", gap.name());
        }
        if let Some(follows) = self.follows {
            let mut attributes = Attributes::new();
            attributes.set("ktrdr.link.kind", "work_after_response");
            s.links.push(Link { trace_id: self.trace_id, span_id: follows, attributes });
        }
    }

    /// Notes the span above.
    fn below(self, above: &mut Option<SpanRef>, span: SpanRef) -> Self {
        *above = Some(span);
        self
    }
}

fn root(trace_id: TraceId) -> Place {
    Place { trace_id, parent: None, follows: None, method: None, gap: None }
}

fn from_wire(c: TraceContext) -> Place {
    let method = Some(Method::TraceContext);
    Place { trace_id: c.trace_id, parent: Some(c.span_id), follows: None, method, gap: None }
}
