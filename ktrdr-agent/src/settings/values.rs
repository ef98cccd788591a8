//! Values with a unit: durations and sizes as people write them, and the choices by name.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::schema::values;

/// A duration written with its unit: `200ms`, `5s`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(pub Duration);

/// A number of bytes, plain or with a binary unit: `4096`, `8KiB`, `16MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RawSize", into = "String")]
pub struct Size(pub u64);

/// A text that is not shown to anybody.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What it is; `None` for nothing.
    pub fn reveal(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "REDACTED" })
    }
}

/// TOML spelling of a [`Size`].
#[derive(Deserialize)]
#[serde(untagged)]
enum RawSize {
    Number(u64),
    Text(String),
}

const PERIODS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Period {
    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
}

/// Splits `15ms` into 15 and `ms`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        number_and_unit(text)
            .and_then(|(n, unit)| n.checked_mul(PERIODS.iter().find(|(u, _)| *u == unit)?.1))
            .map(Self::millis)
            .ok_or_else(|| {
                format!("`{text}` is not a duration: write a whole number and ms, s, m or h (`30s`)")
            })
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        number_and_unit(text)
            .and_then(|(n, unit)| {
                let (_, factor) = SIZES.iter().find(|(u, _)| *u == unit || (unit.is_empty() && *u == "B"))?;
                n.checked_mul(*factor)
            })
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is not a size: write bytes or a number with KiB, MiB or GiB (`16MiB`)")
            })
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<RawSize> for Size {
    type Error = String;

    fn try_from(raw: RawSize) -> Result<Self, String> {
        match raw {
            RawSize::Number(n) => Ok(Self(n)),
            RawSize::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let unit = PERIODS.iter().rev().find(|(_, factor)| ms > 0 && ms.is_multiple_of(u128::from(*factor)));
        let (unit, factor) = unit.unwrap_or(&PERIODS[0]);
        write!(f, "{}{unit}", ms / u128::from(*factor))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        let (unit, factor) = unit.unwrap_or(&SIZES[3]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl From<Period> for String {
    fn from(p: Period) -> String {
        p.to_string()
    }
}

impl From<Size> for String {
    fn from(s: Size) -> String {
        s.to_string()
    }
}

/// Defines an enum whose values are written as words.
macro_rules! choices {
    ($(
        $(#[doc = $doc:literal])*
        pub enum $name:ident { $( $(#[doc = $variant_doc:literal])* $variant:ident = $word:literal ),* $(,)? }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $( $(#[doc = $variant_doc])* #[serde(rename = $word)] $variant ),* }

        impl $name {
            /// Every value with its word.
            pub const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant)),*];
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::WORDS.iter().find(|(word, _)| *word == text);
                found.map(|(_, value)| *value).ok_or_else(|| {
                    let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                    format!("`{text}` is none of {}", words.join(", "))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let word = Self::WORDS.iter().find(|(_, value)| value == self);
                f.write_str(word.map_or("", |(word, _)| word))
            }
        }

        values!($name);
    )*};
}

choices! {
    /// Which kernel hooks see the transfers.
    pub enum Hook {
        /// The socket tracepoints where the kernel has them, else the system call one.
        Auto = "auto",
        /// `sock_send_length` and `sock_recv_length` (Linux 6.3 and later).
        Socket = "socket",
        /// `sys_exit` (any kernel from 5.8).
        Syscall = "syscall",
    }

    /// Where the ends of single system calls are looked at, beside the socket hook.
    pub enum CallEnds {
        /// The first of the following that the kernel allows.
        Auto = "auto",
        /// At the functions of these calls (fexit), which costs other calls nothing.
        Functions = "functions",
        /// At the tracepoints of these calls, which are events of perf.
        Tracepoints = "tracepoints",
        /// At the end of every system call of the host (`sys_exit`).
        Every = "every",
    }

    /// Names of HTTP attributes, as `OTEL_SEMCONV_STABILITY_OPT_IN` chooses them.
    pub enum Semconv {
        /// The stable names only.
        Stable = "http",
        /// The stable names and the ones from before (`http.method`, `http.url`, …).
        Dup = "http/dup",
    }

    /// How spans travel to the receiver.
    pub enum Protocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP over HTTP with protobuf bodies.
        HttpProtobuf = "http/protobuf",
        /// OTLP over HTTP with JSON bodies.
        HttpJson = "http/json",
    }

    /// Compression of what is sent.
    pub enum Compression {
        /// None.
        None = "none",
        /// gzip.
        Gzip = "gzip",
    }

    /// What the console shows.
    pub enum ConsoleFormat {
        /// A tree per trace.
        Human = "human",
        /// One JSON object per span and line.
        Json = "json",
        /// Nothing.
        Off = "off",
    }

    /// Where GPU samples come from.
    pub enum GpuSource {
        /// NVIDIA's library.
        Nvml = "nvml",
        /// An invented device.
        Synthetic = "synthetic",
        /// A recorded file.
        Recording = "recording",
        /// None.
        Off = "off",
    }

    /// When the console uses colours.
    pub enum Colour {
        /// On a terminal, unless `NO_COLOR` is set.
        Auto = "auto",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

values!(Period, Secret, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_their_unit() {
        for (text, ms) in [("0ms", 0), ("250ms", 250), ("30s", 30_000), ("2m", 120_000), (" 1 h ", 3_600_000)]
        {
            assert_eq!(text.parse(), Ok(Period::millis(ms)), "{text}");
        }
        for bad in ["", "s", "10", "-1s", "1.5s", "1d", "99999999999999999h"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
        for p in ["0ms", "1500ms", "90s", "2m", "1h"] {
            assert_eq!(p.parse::<Period>().unwrap().to_string(), p);
        }
    }

    #[test]
    fn sizes_take_binary_units() {
        for (text, n) in [("0", 0), ("100", 100), ("100B", 100), ("8KiB", 8192), ("16 MiB", 16 << 20)] {
            assert_eq!(text.parse(), Ok(Size(n)), "{text}");
        }
        for bad in ["", "KiB", "1.5MiB", "8kb", "99999999999999GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        for s in ["0B", "1025B", "8KiB", "16MiB", "1GiB"] {
            assert_eq!(s.parse::<Size>().unwrap().to_string(), s);
        }
    }

    #[test]
    fn choices_know_their_words() {
        assert_eq!("http/dup".parse(), Ok(Semconv::Dup));
        assert_eq!(Protocol::HttpProtobuf.to_string(), "http/protobuf");
        assert_eq!("tcp".parse::<Hook>().unwrap_err(), "`tcp` is none of auto, socket, syscall");
    }
}
