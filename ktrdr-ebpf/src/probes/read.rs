//! What processes that speak JSON on standard input read there: of a pipe there is no other place to see it, and `read` is
//! what they all use.

use crate::{error::Error, memory::Direct, scratch::Place, speakers, syscall::Call, task::Task};

/// The end of a `read`.
#[inline(always)]
pub fn ended(call: Call<Direct>, result: i64, place: Place) -> Result<(), Error> {
    if result <= 0 {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    // Whose read it is first: this runs at every read of the host.
    let Some(speaker) = speakers::of(task.ids()?.0) else { return Ok(()) };
    if task.is_compat()? {
        return Ok(());
    }
    match speaker.input(task, call)? {
        Some(input) => speaker.read(input, call, result as u32, place),
        None => Ok(()),
    }
}
