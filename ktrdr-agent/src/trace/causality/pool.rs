//! What pools of Python threads run.

use super::state::Causality;
use crate::event::{Ns, Task};

impl Causality {
    pub(super) fn submitted(&mut self, _task: Task, _item: u64, _ts: Ns) {}

    pub(super) fn taken(&mut self, _tgid: u32, _tid: u32, _item: u64, _ts: Ns) {}
}
