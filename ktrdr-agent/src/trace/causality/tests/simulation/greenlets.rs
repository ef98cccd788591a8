//! Servers of greenlets on one thread: each has a context of its own, made when it first needs one, which nobody sees.

use std::collections::VecDeque;

use super::*;

/// One greenlet, or a context that is entered in one.
#[derive(Clone, Copy)]
struct Greenlet {
    /// 0: none yet.
    ctx: u64,
    request: Option<SpanRef>,
    /// Its own connection, and whether it serves that from request to request.
    conn: Option<u64>,
    /// Answers the request on this connection.
    answers: Option<u64>,
    seen: bool,
    /// A copy, entered.
    entered: bool,
    /// The rest of its request has not come.
    body: bool,
    /// It makes its context some time, not at once.
    late: bool,
    /// It takes requests from the queue.
    worker: bool,
}

impl Greenlet {
    const NEW: Self = Self {
        ctx: 0,
        request: None,
        conn: None,
        answers: None,
        seen: true,
        entered: false,
        body: false,
        late: true,
        worker: false,
    };

    fn task(&self) -> Task {
        match self.ctx {
            0 => at(1, 0),
            ctx if self.entered => at(1, ctx),
            ctx => scenario::own(1, ctx),
        }
    }
}

/// All greenlets of a server.
#[derive(Default)]
pub(super) struct Greenlets {
    all: Vec<Greenlet>,
    /// Contexts of connections' greenlets that wait for the next request.
    waiting: Vec<(u64, u64)>,
    /// Read, and not taken by a worker yet.
    queue: VecDeque<(u64, SpanRef, bool)>,
}

impl Server {
    pub(super) fn has_greenlets(self) -> bool {
        matches!(self, Server::Greenlets | Server::LateGreenlets | Server::GreenletPool)
    }
}

impl Sim {
    /// A request comes to the greenlet of its connection.
    pub(super) fn greenlet_reads(&mut self, conn: u64) {
        let waits = self.greenlets.waiting.iter().position(|(c, _)| *c == conn);
        let ctx = waits.map_or(0, |n| self.greenlets.waiting.swap_remove(n).1);
        let late = self.server == Server::LateGreenlets && self.dice.roll(2) == 0;
        let mut g = Greenlet { ctx, conn: Some(conn), late, ..Greenlet::NEW };
        let (span, seen) = self.read(g.task(), conn);
        if self.server == Server::GreenletPool {
            self.greenlets.queue.push_back((conn, span, seen));
            // Its reader goes, or waits for the next.
            match self.dice.roll(3) {
                0 => self.free.extend((g.ctx != 0).then_some(g.ctx)),
                1 if g.ctx == 0 => {
                    let ctx = self.alloc();
                    self.greenlets.waiting.push((conn, ctx));
                }
                _ => self.greenlets.waiting.push((conn, g.ctx)),
            }
            return;
        }
        (g.request, g.answers, g.seen) = (Some(span), Some(conn), seen);
        g.body = self.dice.roll(4) == 0;
        if g.ctx == 0 && !g.body && !g.late {
            g.ctx = self.alloc();
        }
        self.greenlets.all.push(g);
    }

    /// One that belongs to no request.
    fn spawn(&mut self, greenlet: Greenlet) {
        if self.greenlets.all.len() < 200 {
            self.greenlets.all.push(greenlet);
        }
    }

    pub(super) fn greenlet_runs(&mut self) {
        match self.dice.roll(40) {
            0 => self.spawn(Greenlet::NEW),
            1 if self.server == Server::GreenletPool => {
                self.spawn(Greenlet { worker: true, ..Greenlet::NEW })
            }
            _ => {}
        }
        if self.greenlets.all.is_empty() {
            return;
        }
        let n = self.dice.roll(self.greenlets.all.len());
        let mut g = self.greenlets.all[n];
        if std::mem::take(&mut g.body) {
            let conn = g.conn.unwrap_or_default();
            self.w.recv(g.task(), conn);
            if g.ctx == 0 && !g.late {
                g.ctx = self.alloc();
            }
            self.greenlets.all[n] = g;
            return;
        }
        if g.worker && g.request.is_none() {
            let Some((conn, span, seen)) = self.greenlets.queue.pop_front() else { return };
            (g.request, g.answers, g.seen) = (Some(span), Some(conn), seen);
        }
        match self.dice.roll(9) {
            0..=2 => self.called(g.task(), g.request),
            // A pooled connection's bytes.
            3 => self.w.recv(g.task(), 900),
            4 if self.dice.roll(2) == 0 => self.spawn(Greenlet { request: g.request, ..Greenlet::NEW }),
            4 if g.ctx != 0 => {
                let ctx = self.alloc();
                self.w.copy_under(g.task(), ctx);
                self.spawn(Greenlet { ctx, request: g.request, entered: true, ..Greenlet::NEW });
            }
            5 if g.ctx == 0 => g.ctx = self.alloc(),
            5..=6 => {
                if let (Some(conn), Some(span)) = (g.answers.take(), g.request) {
                    self.answered(g.task(), conn, span, g.seen);
                    if g.worker {
                        g.request = None;
                        self.idle.push(conn);
                    }
                }
            }
            // What has answered ends, and most greenlets of connections wait for the next request.
            _ if g.answers.is_none() => {
                self.greenlets.all.swap_remove(n);
                match g.conn {
                    Some(conn) if self.dice.roll(4) > 0 => {
                        self.greenlets.waiting.push((conn, g.ctx));
                        self.idle.push(conn);
                    }
                    over => {
                        self.free.extend((g.ctx != 0).then_some(g.ctx));
                        over.into_iter().for_each(|conn| self.connects_anew(conn));
                    }
                }
                return;
            }
            _ => {}
        }
        self.greenlets.all[n] = g;
    }

    /// The connection is closed, and the client, or another, opens one.
    fn connects_anew(&mut self, conn: u64) {
        let next = conn + 8_000;
        if self.attached {
            self.stands_no_more(conn);
        } else if let Some(stands) = self.standing.iter_mut().find(|c| **c == conn) {
            *stands = next;
        }
        self.idle.push(next);
    }

    /// From now on nobody sees the rest of what is on these connections.
    pub(super) fn greenlets_left(&mut self) {
        for n in 0..self.greenlets.all.len() {
            let Greenlet { answers, request, .. } = self.greenlets.all[n];
            let open = answers.zip(request).filter(|(conn, _)| self.left_out(*conn));
            if let Some((_, span)) = open
                && std::mem::replace(&mut self.greenlets.all[n].seen, false)
            {
                let ts = self.w.tick();
                self.w.c.request_left(span, ts);
            }
        }
        for n in 0..self.greenlets.queue.len() {
            let (conn, span, seen) = self.greenlets.queue[n];
            if self.left_out(conn) && seen {
                self.greenlets.queue[n].2 = false;
                let ts = self.w.tick();
                self.w.c.request_left(span, ts);
            }
        }
    }

    /// What was read is answered in the end.
    pub(super) fn greenlets_end(&mut self) {
        for g in std::mem::take(&mut self.greenlets.all) {
            if let (Some(conn), Some(span)) = (g.answers, g.request) {
                self.answered(g.task(), conn, span, g.seen);
            }
        }
    }
}
