//! Why a record has no trace.

/// The reason; `ktrdr.log.unlinked` on the record where it is not simply that nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// Nothing tells whose work its writer did: most of what services say of themselves.
    NoEvidence,
    /// It came out of a buffer that others may have filled.
    Buffered,
    /// Evidence might have come, but too many lines of the process waited for theirs.
    TooMany,
    /// It did not wait for its place, because too many records waited.
    Hurried,
    /// The request it belongs to had no place in a trace in time.
    NoPlace,
    /// The agent stopped before evidence came.
    Ended,
    /// Some connections are left out: it may be the work of a request that nobody sees.
    LeftOut,
}

impl Unlinked {
    /// All of them, in their order.
    pub const ALL: [Unlinked; 7] = [
        Self::NoEvidence,
        Self::Buffered,
        Self::TooMany,
        Self::Hurried,
        Self::NoPlace,
        Self::Ended,
        Self::LeftOut,
    ];

    /// Its name in attributes and books.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEvidence => "no_evidence",
            Self::Buffered => "buffered",
            Self::TooMany => "too_many",
            Self::Hurried => "hurried",
            Self::NoPlace => "no_place",
            Self::Ended => "ended",
            Self::LeftOut => "left_out",
        }
    }
}
