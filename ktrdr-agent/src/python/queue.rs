//! `_queue.SimpleQueue` of CPython, through which `ThreadPoolExecutor` hands work to its threads: where its functions are in
//! the file that has them.

use std::path::Path;

use super::methods::{self, FAST, KEYWORDS, MethodsError};

/// Where the functions are probed in the file: mostly at the offset of their first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `put`.
    pub put: u64,
    /// `get` and `get_nowait`.
    pub gets: [u64; 2],
}

/// What the table has in every version; some have `__sizeof__` and `__class_getitem__`, too.
const NAMES: [&str; 6] = ["put", "get", "get_nowait", "put_nowait", "empty", "qsize"];

impl Queue {
    /// Looks into a file: the module's, or that of an interpreter that has it built in.
    ///
    /// # Errors
    /// The file cannot be read, or has no such functions.
    pub fn open(path: &Path) -> Result<Queue, MethodsError> {
        methods::find(path, "SimpleQueue", "put_nowait", |table| {
            let passed = table.method("put")?.flags;
            let known = table.has(&NAMES) && passed == FAST | KEYWORDS;
            known.then_some(())?;
            Some(Queue {
                put: table.probed("put")?,
                gets: [table.probed("get")?, table.probed("get_nowait")?],
            })
        })
    }
}
