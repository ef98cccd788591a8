//! The life of sockets: connects, failures, listeners, ends.

use std::net::{Ipv6Addr, SocketAddr};

use super::calls::digest;
use super::lingering::Lingering;
use super::{Core, Output, facts};
use crate::event::{ConnId, ConnectError, Ns, State, Task, Tuple, tcp};
use crate::protocol::Role;
use crate::trace::assembly::passing::{Head, Moment};
use crate::trace::assembly::{About, NewSpan};
use crate::trace::connects::{Connecting, Failed};
use crate::trace::ids::ExchangeId;
use crate::trace::relays::Ends;
use crate::trace::spans;

/// Connections of the agent itself that are remembered, so that the collector's end of them is left alone.
const MAX_OWN: usize = 64;

impl Core {
    pub(super) fn state(&mut self, ts: Ns, task: Task, s: &State) {
        match (s.old, s.new) {
            (tcp::CLOSE, tcp::SYN_SENT) => {
                if task.tgid == self.agent_tgid {
                    while self.own_connecting.len() >= MAX_OWN {
                        self.own_connecting.pop_first();
                    }
                    self.own_connecting.insert(s.conn);
                }
                if !self.wanted(&s.tuple) || task.tgid == self.agent_tgid {
                    return;
                }
                self.watch_user(task.tgid);
                let connecting = self.connecting(task, ts, s.tuple.remote, s.tuple.netns);
                self.connects.started(s.conn, connecting);
            }
            (tcp::SYN_SENT, tcp::CLOSE) => {
                self.connects.failed(s.conn, s.error, ts);
            }
            (tcp::SYN_SENT | tcp::SYN_RECV, tcp::ESTABLISHED) => {
                self.stands_no_more(&s.tuple);
                let connecting = self.connects.succeeded(s.conn);
                if self.own_connecting.remove(&s.conn) {
                    self.remember_own(&s.tuple);
                } else if self.wanted(&s.tuple) {
                    // The end of the agent's own was perhaps not told, and another has its ports now.
                    self.own.remove(&(s.tuple.local, s.tuple.remote));
                    if let Some(c) = &connecting {
                        self.measure_connect(c);
                    }
                    if self.thinning.leaves_out(&s.tuple) {
                        return;
                    }
                    let owner = connecting.map_or(0, |c| c.task.tgid);
                    match connecting {
                        Some(c) => {
                            self.assembler.relays.made(Ends::of(&s.tuple, Role::Client), owner, c.start)
                        }
                        None if s.old == tcp::SYN_RECV => {
                            let port = s.tuple.local.port();
                            let listener = self.listeners.owner(s.tuple.netns, port).unwrap_or(0);
                            self.assembler.relays.accepted(Ends::of(&s.tuple, Role::Server), listener, ts);
                        }
                        None => {}
                    }
                    self.engine.established(ts, s, owner, connecting.map(|c| (c.start, c.after)));
                }
            }
            (_, tcp::LISTEN) => {
                self.serves(task.tgid);
                self.listeners.up(s.tuple.netns, s.tuple.local, task.tgid, Some(ts));
                self.measure_listener(task.tgid);
                if self.wanted(&s.tuple) {
                    self.causality.serves(task.tgid);
                    self.watch_user(task.tgid);
                }
            }
            (tcp::LISTEN, _) => self.listeners.down(s.tuple.netns, s.tuple.local, task.tgid, ts),
            (_, tcp::CLOSE) => {
                let why = match s.error {
                    104 | 32 => "connection_reset",
                    110 => "connection_timeout",
                    _ => "connection_closed",
                };
                self.stands_no_more(&s.tuple);
                self.own.remove(&(s.tuple.local, s.tuple.remote));
                self.assembler.relays.closed(Ends::of(&s.tuple, Role::Server), ts);
                let open = || self.engine.get(s.conn).is_some_and(|c| c.pairing.open() > 0);
                if Lingering::concerns(s) && open() {
                    if let Some((at, conn)) = self.lingering.add(ts, s.conn) {
                        self.closed(at, conn, "connection_closed");
                    }
                } else {
                    self.closed(ts, s.conn, why);
                }
            }
            _ => {}
        }
    }

    fn connecting(&mut self, task: Task, start: Ns, remote: SocketAddr, netns: u32) -> Connecting {
        let after = self.causality.just_read(task, start);
        if let Some(after) = after {
            self.assembler.connects_after(task.tgid, after);
        }
        Connecting { task, call: self.causality.call(task, start), after, start, remote, netns }
    }

    fn closed(&mut self, ts: Ns, conn: ConnId, why: &'static str) {
        if let Some(outcome) = self.engine.closed(ts, conn, why) {
            let (on, paired) = digest(outcome);
            self.paired(conn, on, paired);
        }
        self.engine.forget(conn);
        self.out.push_back(Output::Forget(conn));
    }

    /// Closes what has waited for its reader long enough.
    pub(super) fn settle_lingering(&mut self, now: Ns) {
        while let Some((ts, conn)) = self.lingering.due(now) {
            self.closed(ts, conn, "connection_closed");
        }
    }

    fn remember_own(&mut self, t: &Tuple) {
        while self.own.len() >= MAX_OWN {
            self.own.pop_first();
        }
        self.own.insert((t.local, t.remote));
    }

    pub(super) fn connect_error(&mut self, ts: Ns, task: Task, c: &ConnectError) {
        if task.tgid == self.agent_tgid || !self.wanted_ports(0, c.remote.port()) {
            return;
        }
        let connecting = self.connecting(task, ts, c.remote, c.netns);
        self.connects.failed_at_once(connecting, c.error, ts);
    }

    pub(super) fn failed(&mut self, f: &Failed) {
        let c = f.connect;
        if self.processes.get(c.task.tgid).is_some_and(|p| p.meta.excluded) {
            return;
        }
        // A failed connect has no sequence number; its process, thread and time name it.
        let client = SocketAddr::new(Ipv6Addr::from(u128::from(c.start)).into(), 0);
        let exchange = ExchangeId::new(
            self.assembler.id_seed() ^ u64::from(c.task.tgid),
            client,
            c.remote,
            c.netns,
            c.task.tid,
        );
        // Numbered now and not when it failed: it may have waited for another address meanwhile.
        let span = self.engine.next_span();
        let call = Some(c.call);
        let begin = Moment { ts: c.start, after: c.after };
        self.assembler.begin(NewSpan {
            span,
            role: Role::Client,
            exchange,
            positions: None,
            start: c.start,
            tgid: c.task.tgid,
            call,
            context: None,
            relay: None,
            passing: (!self.causality.follows_contexts(c.task.tgid) && !self.causality.is_partial(c.start))
                .then(|| Head::connect(begin)),
        });
        self.called(span, c.task, c.start);
        let ports = crate::protocol::PROTOCOLS.iter().flat_map(|p| p.ports());
        if ports.into_iter().any(|p| *p == c.remote.port()) {
            self.assembler.about(span, About::connect());
        }
        if let Some(id) = self.logs.hints.of(c.task, c.start) {
            self.assembler.hint(span, id);
        }
        let mut facts = facts!(self);
        let mut draft = spans::failed_connect(f, &mut facts);
        self.tell_restarts(&mut draft);
        self.operations.workers_mut().unreachable(&mut draft);
        self.assembler.finish(span, draft, &mut self.spans);
    }
}
