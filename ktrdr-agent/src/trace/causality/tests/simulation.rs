//! Random interleavings of simulated servers whose truth is known.

mod greenlets;
mod laws;
mod pool;

use super::super::*;
use super::scenario::{self, World, at};
use crate::dice::Dice;
use greenlets::Greenlets;
use pool::Pool;

/// How a server starts the task of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    /// Copy of the reader's context of the connection, in the handler of the read.
    Asyncio,
    /// Read under no context, then a copy of the server's.
    Uvloop,
    /// The connection's own task is woken and copies its context for each request.
    ConnectionTask,
    /// As before, under a loop that reads under no context.
    ConnectionTaskUvloop,
    /// The connection's own task serves its requests itself, one after the other.
    ServingTask,
    /// As before, under a loop that reads under no context.
    ServingTaskUvloop,
    /// A new context that is no copy.
    Fresh,
    /// A copy of a new context that is none and goes at once.
    CopyOfFresh,
    /// The same under a loop that reads under no context.
    CopyOfFreshUvloop,
    /// As the first, but some requests are put into a queue, and a worker that was there before works for them, and answers.
    Worker,
    /// A greenlet for each connection, which makes its context when it has read its first request.
    Greenlets,
    /// The same, but some wait before they make it, and others may have its address meanwhile.
    LateGreenlets,
    /// Greenlets that read, and others that work for what was read, and answer.
    GreenletPool,
}

struct Job {
    ctx: u64,
    request: Option<SpanRef>,
    /// Answers the request on this connection.
    answers: Option<u64>,
    /// Not yet begun: the connection's task has to be woken first.
    waking: Option<u64>,
    /// Its request is seen, and so is the answer.
    seen: bool,
}

/// Which connections are left out, and between which steps.
#[derive(Clone, Copy, Debug)]
struct Thinned {
    /// In eighths.
    share: u64,
    from: usize,
    to: usize,
}

/// When the agent came to a server under load, in steps.
#[derive(Clone, Copy, Debug)]
struct Late {
    attached: usize,
    /// Contexts are followed.
    followed: usize,
}

/// What tasks gave their loop, which it has not sent yet.
struct Given {
    number: u64,
    what: Sent,
}

enum Sent {
    Call(Option<SpanRef>),
    Answer { conn: u64, span: SpanRef, seen: bool },
}

struct Sim {
    w: World,
    dice: Dice,
    server: Server,
    jobs: Vec<Job>,
    idle: Vec<u64>,
    /// Freed addresses, last in first out, as the interpreter's free list.
    free: Vec<u64>,
    next: u64,
    truth: Vec<(CallRef, Option<SpanRef>)>,
    thinned: Option<Thinned>,
    partial: bool,
    late: Option<Late>,
    /// The agent has come.
    attached: bool,
    /// The last request that was seen before contexts were followed.
    older: SpanRef,
    /// Connections that were there before it and have shown nothing yet.
    standing: Vec<u64>,
    hidden: u64,
    pool: Pool,
    /// The loop sends later (uvloop before 0.23).
    later: bool,
    given: Vec<Given>,
    greenlets: Greenlets,
}

const READER: u64 = 10_000;
const CONNECTION_TASK: u64 = 20_000;
const LISTENER: u64 = 2;
const WORKER: u64 = 6;
/// Under which a loop sends what it was given.
const LOOP: u64 = 4;
/// Requests that nobody sees have numbers beyond this.
const HIDDEN: u64 = 1 << 40;

impl Sim {
    fn new(server: Server, conns: u64, seed: u64) -> Self {
        Self::of(World::python(), server, conns, seed)
    }

    fn late(late: Late, server: Server, conns: u64, seed: u64) -> Self {
        let standing = (0..conns).collect();
        Self { late: Some(late), attached: false, standing, ..Self::of(World::blind(), server, conns, seed) }
    }

    fn of(mut w: World, server: Server, conns: u64, seed: u64) -> Self {
        if server.has_greenlets() {
            w.c.greenlets(1);
        }
        // A background task that was created at startup, before any request.
        w.copy(1, 1, LISTENER);
        w.copy(1, 1, 3);
        // Connections wait for who accepts them, or are opened later.
        if !w.blind && seed.is_multiple_of(3) {
            w.opened = Some(w.tick());
        }
        w.copy(1, 1, WORKER);
        // The loop's own context is older than our sight, or not.
        if seed.is_multiple_of(2) {
            w.copy(1, 1, LOOP);
        }
        if !w.blind && w.opened.is_none() {
            w.opened = Some(w.tick());
        }
        for c in 0..conns {
            w.copy(1, LISTENER, CONNECTION_TASK + c);
            w.copy(1, LISTENER, READER + c);
        }
        let background = Job { ctx: 3, request: None, answers: None, waking: None, seen: true };
        Self {
            w,
            dice: Dice(seed),
            server,
            jobs: vec![background],
            idle: (0..conns).collect(),
            free: Vec::new(),
            next: 100,
            truth: Vec::new(),
            thinned: None,
            partial: false,
            late: None,
            attached: true,
            older: SpanRef(0),
            standing: Vec::new(),
            hidden: HIDDEN,
            pool: Pool::default(),
            later: false,
            given: Vec::new(),
            greenlets: Greenlets::default(),
        }
    }

    fn left_out(&self, conn: u64) -> bool {
        self.partial && self.thinned.is_some_and(|t| conn % 8 < t.share)
    }

    /// Something else is left out from this step on, perhaps.
    fn thin(&mut self, step: usize) {
        let Some(t) = self.thinned else { return };
        if step == t.from {
            self.partial = true;
            self.w.partial(true);
            self.greenlets_left();
            for n in 0..self.jobs.len() {
                let job = &self.jobs[n];
                let Some((_, span)) = job.answers.zip(job.request).filter(|(conn, _)| self.left_out(*conn))
                else {
                    continue;
                };
                self.jobs[n].seen = false;
                let ts = self.w.tick();
                self.w.c.request_left(span, ts);
            }
            let (left, given) = (|conn| conn % 8 < t.share, &mut self.given);
            for g in given {
                if let Sent::Answer { conn, span, seen } = &mut g.what
                    && left(*conn)
                    && std::mem::replace(seen, false)
                {
                    let ts = self.w.tick();
                    self.w.c.request_left(*span, ts);
                }
            }
        }
        if step == t.to {
            self.partial = false;
            self.w.partial(false);
        }
    }

    fn come(&mut self, step: usize) {
        let Some(Late { attached, followed }) = self.late else { return };
        if step >= attached && !self.attached {
            self.attached = true;
            self.standing.iter().for_each(|_| self.w.stood());
        }
        if self.w.blind && step >= followed {
            self.w.follow();
            self.older = self.w.newest();
        }
    }

    /// A request comes; whether anybody sees it.
    fn read(&mut self, task: Task, conn: u64) -> (SpanRef, bool) {
        if self.attached && !self.left_out(conn) {
            self.stands_no_more(conn);
            return (self.w.read(task, conn), true);
        }
        if self.attached {
            self.w.unseen(task, conn);
        }
        self.hidden += 1;
        (SpanRef(self.hidden), false)
    }

    fn alloc(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next
        })
    }

    fn reader(&self, conn: u64) -> u64 {
        match self.server {
            Server::Asyncio
            | Server::ConnectionTask
            | Server::ServingTask
            | Server::CopyOfFresh
            | Server::Worker => READER + conn,
            _ => 0,
        }
    }

    fn arrive(&mut self) {
        if self.idle.is_empty() {
            return;
        }
        let n = self.dice.roll(self.idle.len());
        let conn = self.idle.swap_remove(n);
        if self.server.has_greenlets() {
            return self.greenlet_reads(conn);
        }
        let reader = self.reader(conn);
        let (span, seen) = self.read(at(1, reader), conn);
        let job = |ctx| Job { ctx, request: Some(span), answers: Some(conn), waking: None, seen };
        match self.server {
            Server::Asyncio | Server::Uvloop | Server::Worker => {
                let parent = if self.server == Server::Uvloop { LISTENER } else { reader };
                let ctx = self.alloc();
                self.w.copy(1, parent, ctx);
                // The handle of a timer, freed at once.
                let timer = self.alloc();
                self.w.copy(1, parent, timer);
                self.free.push(timer);
                let queued = self.server == Server::Worker && self.dice.roll(2) == 0;
                self.jobs.push(job(if queued { WORKER } else { ctx }));
            }
            Server::CopyOfFresh | Server::CopyOfFreshUvloop => {
                let fresh = self.alloc();
                let ctx = self.alloc();
                self.w.copy(1, fresh, ctx);
                self.free.push(fresh);
                self.jobs.push(job(ctx));
            }
            Server::Fresh => {
                let ctx = self.alloc();
                self.jobs.push(job(ctx));
            }
            Server::Greenlets | Server::LateGreenlets | Server::GreenletPool => {}
            Server::ConnectionTask | Server::ConnectionTaskUvloop => {
                self.jobs.push(Job { waking: Some(CONNECTION_TASK + conn), ..job(0) });
            }
            Server::ServingTask | Server::ServingTaskUvloop => self.jobs.push(job(CONNECTION_TASK + conn)),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn call(&mut self, task: Task, truth: Option<SpanRef>) {
        if !self.later || task.tid != 1 {
            self.called(task, truth);
            return;
        }
        let waits = self.given.iter().rev().find(|g| matches!(g.what, Sent::Call(_))).map(|g| g.number);
        // Some on a connection that another task has just written to.
        let number = match waits.filter(|_| self.dice.roll(10) == 0) {
            Some(number) => {
                self.w.write(task, number, true);
                number
            }
            None => {
                let number = self.number();
                self.w.write(task, number, false);
                number
            }
        };
        self.given.push(Given { number, what: Sent::Call(truth) });
    }

    fn called(&mut self, task: Task, truth: Option<SpanRef>) {
        if self.attached {
            let call = self.w.call(task);
            self.truth.push((call, truth));
        }
    }

    /// Something was seen of the connection.
    fn stands_no_more(&mut self, conn: u64) {
        if let Some(at) = self.standing.iter().position(|c| *c == conn) {
            self.standing.swap_remove(at);
            self.w.c.stands_no_more(1);
        }
    }

    fn answered(&mut self, task: Task, conn: u64, span: SpanRef, seen: bool) {
        match seen {
            true => self.w.finish(task, span),
            // Of a connection that is left out nobody tells.
            false if self.attached && !self.partial => {
                self.w.unasked(task);
                self.stands_no_more(conn);
            }
            false => {}
        }
    }

    fn answer(&mut self, ctx: u64, conn: u64, span: SpanRef, seen: bool) {
        if !self.later {
            self.answered(at(1, ctx), conn, span, seen);
            self.idle.push(conn);
            return;
        }
        let number = self.number();
        // Head and body, perhaps.
        for behind in [false, true].into_iter().take(1 + self.dice.roll(2)) {
            self.w.write(at(1, ctx), number, behind);
        }
        // Or somebody else's bytes, on a connection that did not take all at once.
        if self.dice.roll(50) == 0 {
            self.w.write(at(1, 3), number, true);
        }
        self.given.push(Given { number, what: Sent::Answer { conn, span, seen } });
    }

    /// The loop sends what it was given, in no order. Contexts that wrote may be others by now.
    fn send(&mut self) {
        while !self.given.is_empty() {
            let n = self.dice.roll(self.given.len());
            let Given { number, what } = self.given.swap_remove(n);
            // Of some the kernel programs do not say who wrote.
            let task = if self.dice.roll(100) == 0 { at(1, LOOP) } else { scenario::given(1, number) };
            match what {
                Sent::Call(truth) => self.called(task, truth),
                Sent::Answer { conn, span, seen } => {
                    self.answered(task, conn, span, seen);
                    self.idle.push(conn);
                }
            }
        }
    }

    /// The context of a task that begins.
    fn begin(&mut self, parent: u64) -> u64 {
        let ctx = self.alloc();
        self.w.copy(1, parent, ctx);
        ctx
    }

    fn step(&mut self) {
        if self.server.has_greenlets() {
            return self.greenlet_runs();
        }
        let n = self.dice.roll(self.jobs.len());
        if let Some(parent) = self.jobs[n].waking.take() {
            self.jobs[n].ctx = self.begin(parent);
            return;
        }
        let (ctx, request, answers) = (self.jobs[n].ctx, self.jobs[n].request, self.jobs[n].answers);
        let thread = if self.dice.roll(10) == 0 && answers.is_none() { 5 } else { 1 };
        match self.dice.roll(9) {
            8 if self.pool.queue.len() < 50 => {
                let item = self.alloc();
                self.w.submit(at(thread, ctx), item);
                self.pool.queue.push_back((item, request));
            }
            0..=2 => {
                self.call(at(thread, ctx), request);
            }
            // A pooled connection's bytes arrive under whatever context reads them.
            3 => self.w.recv(at(1, self.reader(500)), 900),
            4 if self.jobs.len() < 200 => {
                let child = self.alloc();
                self.w.copy(1, ctx, child);
                self.jobs.push(Job { ctx: child, request, answers: None, waking: None, seen: true });
            }
            5..=6 => {
                if let (Some(conn), Some(span)) = (answers, request) {
                    self.answer(ctx, conn, span, self.jobs[n].seen);
                    self.jobs[n].answers = None;
                    if ctx == WORKER || (CONNECTION_TASK..CONNECTION_TASK + 1_000).contains(&ctx) {
                        // It takes the next one.
                        self.jobs.swap_remove(n);
                    }
                }
            }
            // Only what has answered ends; the background task never does.
            _ if answers.is_none() && request.is_some() => {
                self.free.push(ctx);
                self.jobs.swap_remove(n);
            }
            _ => {}
        }
    }

    /// (right, wrong, missing)
    fn run(mut self, steps: usize) -> (usize, usize, usize) {
        self.play(steps);
        self.score(|_| true)
    }

    fn play(&mut self, steps: usize) {
        for step in 0..steps {
            self.thin(step);
            self.come(step);
            match self.dice.roll(8) {
                0..=1 => self.arrive(),
                2 => self.pool(),
                _ => self.step(),
            }
            if self.dice.roll(4) == 0 {
                self.send();
            }
        }
        // What was read is answered in the end.
        for n in 0..self.jobs.len() {
            if let Some(parent) = self.jobs[n].waking.take() {
                self.jobs[n].ctx = self.begin(parent);
            }
            let Job { ctx, answers, request, seen, .. } = self.jobs[n];
            if let (Some(conn), Some(span)) = (answers, request) {
                self.answer(ctx, conn, span, seen);
            }
        }
        self.send();
        self.greenlets_end();
    }

    /// The same of calls for these requests, or for none.
    fn score(&mut self, of: impl Fn(Option<SpanRef>) -> bool) -> (usize, usize, usize) {
        let mut score = (0, 0, 0);
        for (call, truth) in std::mem::take(&mut self.truth).into_iter().filter(|(_, truth)| of(*truth)) {
            match (self.w.late(call).map(|o| o.span), truth) {
                (found, truth) if found == truth => score.0 += 1,
                (None, Some(SpanRef(HIDDEN..))) => {}
                (None, _) => score.2 += 1,
                // A guess, which says that it is one: it supposes that no request is under way that nobody saw come.
                _ if self.late.is_some() && !self.w.late(call).is_some_and(|o| o.method.exact()) => {
                    score.2 += 1
                }
                _ => score.1 += 1,
            }
        }
        score
    }
}
