//! Counters kept by the kernel programs in one per-CPU array. A new one is one line here.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Index into the per-CPU counter array. Numbers are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl Counter {
            /// All counters, in order of their numbers.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)+];
            /// Name in self-metrics and in `check`.
            pub const fn name(self) -> &'static str { match self { $(Counter::$variant => $name,)+ } }
            /// What it counts.
            pub const fn help(self) -> &'static str { match self { $(Counter::$variant => concat!($($doc),+),)+ } }
        }
    };
}

counters! {
    /// Records that a kernel program handed to the ring. Equals records decoded by the agent once drained.
    Submitted = 0, "records_submitted";
    /// Records lost because the ring was full.
    LostRingFull = 1, "records_lost_ring_full";
    /// Transfers whose user buffer could not be read; the record still went out, with fewer bytes.
    CopyFault = 2, "copy_faults";
    /// Kernel memory that could not be read (socket, task, file); no record went out.
    KernelReadFault = 3, "kernel_read_faults";
    /// Transfers on connections whose policy is to ignore them.
    Ignored = 4, "transfers_ignored";
    /// Transfers of excluded processes and of the agent itself.
    Excluded = 5, "transfers_excluded";
    /// Transfers without a user buffer the programs can follow (sendfile, splice, io_uring, 32-bit tasks); sent as records without payload.
    NoBuffer = 6, "transfers_without_buffer";
    /// Payload bytes moved by the recorded transfers.
    BytesSeen = 7, "bytes_seen";
    /// Payload bytes copied into records.
    BytesCaptured = 8, "bytes_captured";
    /// Python context copies told.
    PyContextCopies = 9, "python_context_copies";
    /// A per-CPU scratch buffer or another map entry that must exist was missing.
    MapFault = 10, "map_faults";
    /// Writes of watched processes that were not captured because the process writes more than its rate.
    WritesOverRate = 11, "writes_over_rate";
    /// Bytes of those writes.
    WriteBytesOverRate = 12, "write_bytes_over_rate";
    /// Bytes of captured writes that lie beyond what their records hold.
    WriteBytesTruncated = 13, "write_bytes_truncated";
    /// Bytes of watched processes' writes copied into records.
    WriteBytesCaptured = 14, "write_bytes_captured";
    /// Python contexts that could not be read in a process that is followed (its page was moved or is not there); what was done under them has no parent.
    PyContextFaults = 15, "python_context_faults";
    /// Python context copies told before they were made, from the interpreter's free list, which costs half.
    // The programs count them here alone; see `Counter::complete`.
    PyContextForetold = 16, "python_context_foretold";
    /// Copies that the free list did not name, of those that were checked: it is not asked again in that process.
    PyContextMistold = 17, "python_context_mistold";
    /// Transfers on connections that are left out for a while, because all of them would take more of the host than the agent may.
    TransfersLeftOut = 18, "transfers_left_out";
    /// Beginnings and ends of such connections.
    StatesLeftOut = 19, "states_left_out";
    /// Transfers told by the second program at the tracepoint, because the kernel refused the first one its run, or may have.
    TransfersBySecond = 20, "transfers_by_second";
}

impl Counter {
    /// Adds what the programs count in one place to the others that it belongs to: a copy that is foretold is a record and a
    /// copy, and each counter takes its program 7 ns.
    pub fn complete(values: &mut [u64; COUNTERS as usize]) {
        let foretold = values[Counter::PyContextForetold as usize];
        values[Counter::Submitted as usize] += foretold;
        values[Counter::PyContextCopies as usize] += foretold;
    }
}

/// Entries of the counter array.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;
