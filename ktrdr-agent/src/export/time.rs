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

/// The nanoseconds since the Unix epoch of an RFC 3339 text in UTC, as [`rfc3339`] writes it; fewer decimals will do.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, sep: char| -> Option<(u64, u64, u64)> {
        let mut parts = text.split(sep).map(|p| match p.bytes().all(|b| b.is_ascii_digit()) {
            true => p.parse::<u64>().ok(),
            false => None,
        });
        let three = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(three)
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let ((y, mo, d), (h, mi, s)) = (numbers(date, '-')?, numbers(time, ':')?);
    if !(1970..=2554).contains(&y) || !(1..=12).contains(&mo) || !(1..=31).contains(&d) {
        return None;
    }
    if h > 23 || mi > 59 || s > 60 || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let fraction = fraction.bytes().all(|b| b.is_ascii_digit()).then_some(fraction)?;
    let nanos = fraction.parse::<u64>().ok()? * 10u64.pow(9 - fraction.len() as u32);
    let secs = days(y, mo, d) * 86_400 + h * 3600 + mi * 60 + s;
    secs.checked_mul(SECOND)?.checked_add(nanos)
}

/// Days from 1970-01-01 to a date not before it: the inverse of [`civil`] (Howard Hinnant's `days_from_civil`).
fn days(year: u64, month: u64, day: u64) -> u64 {
    let y = year - u64::from(month <= 2);
    let (era, yoe) = (y / 400, y % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for ns in [0, 7, 951_868_800 * SECOND, 1_763_036_106_123_456_789, u64::MAX] {
            assert_eq!(parse_rfc3339(&rfc3339(ns)), Some(ns));
        }
        assert_eq!(parse_rfc3339("2025-11-13T12:15:06Z"), Some(1_763_036_106 * SECOND));
        for bad in [
            "",
            "Z",
            "TZ",
            "2025-11-13",
            "2025-13-13T12:15:06Z",
            "2025-11-13T12:15:06",
            "1969-11-13T12:15:06Z",
            "2025-11-13T12:15:06.Z",
            "2025-11-13T12:15:06.1234567890Z",
            "2025-11-13T12:15:+6Z",
            "9999-11-13T12:15:06Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

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
