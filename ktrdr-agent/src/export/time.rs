//! Wall-clock times as text.

use std::fmt::Write;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Calendar date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// Year, month, day.
    pub date: (i64, u32, u32),
    /// Hour, minute, second.
    pub time: (u32, u32, u32),
    /// Nanoseconds of the second.
    pub nanos: u32,
}

impl Utc {
    /// From nanoseconds since the Unix epoch.
    pub fn from_unix_ns(ns: u64) -> Self {
        let secs = ns / SECOND;
        let of_day = (secs % 86_400) as u32;
        Self {
            date: civil((secs / 86_400) as i64),
            time: (of_day / 3600, of_day / 60 % 60, of_day % 60),
            nanos: (ns % SECOND) as u32,
        }
    }
}

/// The proleptic Gregorian date of a day counted from 1970-01-01 (not before it). Howard Hinnant's
/// `civil_from_days`: years begin in March, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let day = doy - (153 * mp + 2) / 5 + 1;
    (yoe + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

/// RFC 3339 with nine decimals, in UTC.
pub fn rfc3339(ns: u64) -> String {
    let Utc { date: (y, mo, d), time: (h, mi, s), nanos } = Utc::from_unix_ns(ns);
    let mut out = String::with_capacity(30);
    // Writing to a string cannot fail.
    let _ = write!(out, "{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{nanos:09}Z");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        // From `date -u -d @N +%FT%TZ`.
        for (secs, want) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000000007Z"),
            (1_763_036_106, "2025-11-13T12:15:06.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(rfc3339(secs * SECOND + 7), want);
        }
        assert_eq!(rfc3339(u64::MAX).len(), 30);
    }
}
