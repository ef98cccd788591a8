//! How far copies are believed that a way to bind them gives to requests.

use crate::event::ConnId;

/// What is known of a way to bind copies to requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    conn: Option<ConnId>,
    several: bool,
    bad: bool,
    /// Responses that could neither agree nor refute: the loop wrote them under a context of its own.
    silent: u32,
    /// Responses were written under the context that copies: it is a task's.
    answers: bool,
}

impl Style {
    /// A response agreed with such a binding.
    pub fn agree(&mut self, conn: ConnId) {
        self.several |= self.conn.is_some_and(|c| c != conn);
        self.conn = Some(conn);
    }
    /// A response refuted one: never to be trusted alone again.
    pub fn refute(&mut self) {
        self.bad = true;
    }
    /// A response was written by the loop itself, not under the context that copies.
    pub fn silent(&mut self) {
        self.silent = self.silent.saturating_add(1);
    }
    /// A response was written under the context that copies.
    pub fn answered(&mut self) {
        self.answers = true;
    }
    /// Responses can tell nothing, and nothing has ever spoken against it.
    pub fn uncontested(&self) -> bool {
        self.silent > 0 && !self.answers && !self.bad
    }
    /// Proven at all.
    pub fn proven(&self) -> bool {
        self.conn.is_some() && !self.bad
    }
    /// Proven for any connection (one connection's task copies for that connection only), or for this one.
    pub fn proven_for(&self, conn: ConnId) -> bool {
        self.proven() && (self.several || self.conn == Some(conn))
    }
}
