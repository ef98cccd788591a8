//! What an instrument is: its name, unit, kind and attributes, as OpenTelemetry defines them.

/// How values of an instrument add up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Whole numbers that only grow.
    Counter,
    /// Amounts (seconds) that only grow.
    FloatCounter,
    /// A number of things there are now; sums over series mean something.
    UpDown,
    /// A reading; it holds as long as it is renewed.
    Gauge,
    /// Values counted by these upper bounds (inclusive), rising.
    Histogram(&'static [f64]),
}

/// An instrument: one line of the table in [`super::Id`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instrument {
    /// OpenTelemetry name.
    pub name: &'static str,
    /// Unit (UCUM), or `{things}`.
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Attributes that its series may have, in the order they are given.
    pub attributes: &'static [&'static str],
}

/// Seconds: the boundaries that the semantic conventions recommend for `http.*.request.duration`.
pub const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds of an operation: KTRDR's own boundaries.
pub const OPERATION_SECONDS: &[f64] = &[1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// Seconds of the calls to the IB Gateway: from a cached contract to KTRDR's timeout of 30 s and its retries.
pub const IB_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Bytes of a body: from an empty answer to megabytes of prices.
pub const BYTES: &[f64] =
    &[0.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Parts of a whole.
pub const FRACTIONS: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Makes the enum of all instruments and the table behind it from one list.
macro_rules! instruments {
    ($($(#[doc = $doc:literal])+ $id:ident = $name:literal, $unit:literal, $kind:expr, [$($attribute:literal),*];)+) => {
        /// All instruments. A new one is one line in this file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Id { $($(#[doc = $doc])+ $id,)+ }

        impl Id {
            /// Every instrument, in the order of the table.
            pub const ALL: &[Id] = &[$(Id::$id),+];
            const TABLE: &[Instrument] = &[$(Instrument {
                name: $name,
                unit: $unit,
                description: concat!($($doc),+).trim_ascii(),
                kind: $kind,
                attributes: &[$($attribute),*],
            }),+];

            /// Its line of the table.
            pub fn instrument(self) -> &'static Instrument {
                &Self::TABLE[self as usize]
            }
        }
    };
}
pub(super) use instruments;
