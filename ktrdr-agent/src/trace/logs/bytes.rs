//! What became of the bytes of captured writes: each is counted once, under what was made of it.

/// Why a captured write is none of a log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Of a process that is not observed: an excluded one, or the agent itself.
    Unobserved,
    /// Of a conversation on pipes (`docs/jsonrpc.md`).
    Conversation,
    /// To a file that is no log.
    NoLog,
}

/// Bytes of captured writes. Once the stream has ended `captured` is the sum of all others; before, some are in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Of all writes that the kernel side told.
    pub captured: u64,
    /// By [`Aside`].
    pub aside: [u64; 3],
    /// Of records, with what was cut off of them.
    pub records: u64,
    /// Of copies of a record in a second file.
    pub copies: u64,
    /// Of lines of a command's output, and of messages of protocols.
    pub output: u64,
    /// Of lines that were no text.
    pub binary: u64,
    /// Of lines with nothing on them that belong to no record.
    pub blank: u64,
}

impl ByteCounts {
    /// A write is none of a log's.
    pub fn aside(&mut self, why: Aside, bytes: usize) {
        self.captured += bytes as u64;
        self.aside[why as usize] += bytes as u64;
    }

    /// By their names in the books.
    pub fn named(&self) -> [(&'static str, u64); 9] {
        let aside = |why: Aside| self.aside[why as usize];
        [
            ("bytes", self.captured),
            ("record_bytes", self.records),
            ("copy_bytes", self.copies),
            ("output_bytes", self.output),
            ("binary_bytes", self.binary),
            ("blank_bytes", self.blank),
            ("unobserved_bytes", aside(Aside::Unobserved)),
            ("conversation_bytes", aside(Aside::Conversation)),
            ("no_log_bytes", aside(Aside::NoLog)),
        ]
    }

    /// Those of which it is known what became of them.
    pub fn accounted_for(&self) -> u64 {
        self.aside.iter().sum::<u64>() + self.records + self.copies + self.output + self.binary + self.blank
    }
}
