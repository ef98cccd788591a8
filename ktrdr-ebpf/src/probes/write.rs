//! What watched processes write to pipes, terminals and files. Unix sockets are seen where all sockets are, and with the
//! older hook so is everything here.

use crate::{
    error::Error,
    handled::{self, By},
    memory::Direct,
    scratch::Place,
    syscall::Call,
    task::Task,
    watch,
};

/// The end of a `write` or `writev`.
#[inline(always)]
pub fn ended(call: Call<Direct>, result: i64, by: By, place: Place) -> Result<(), Error> {
    let task = Task::<Direct>::current();
    // Before anything else, or a mark could outlive its call.
    if handled::take(task, call, result, by)? || result <= 0 {
        return Ok(());
    }
    let (tgid, tid) = task.ids()?;
    let Some(process) = watch::of(tgid, tid) else { return Ok(()) };
    if task.is_compat()? {
        return Ok(());
    }
    let (fd, len) = (call.argument::<0>()? as u32, result as u32);
    if process.floods(fd, len) {
        return Ok(());
    }
    process.wrote(task, call, fd, len, false, place)
}
