//! Numbers as people read them, in tables, messages and cards. A number that is not finite is a dash.

use std::time::Duration;

/// 1061591040 as 1,061,591,040.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}

/// Bytes in a unit of a power of 1000, with one to three digits before the point.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].iter().peekable();
    while value >= 999.5 && units.len() > 1 {
        value /= 1000.0;
        units.next();
    }
    let unit = units.next().unwrap_or(&"PB");
    match value {
        _ if bytes < 1000 => format!("{bytes} B"),
        value if value < 9.95 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// A rate: whole from 100 on, else with three significant digits: 12,345 · 123 · 12.3 · 1.23.
pub fn rate(value: f64) -> String {
    match value {
        value if !value.is_finite() => "–".to_owned(),
        value if value >= 99.95 => grouped(value.round() as u64),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A number with this many decimals.
pub fn fixed(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "–".to_owned() }
}

/// A share in percent, with this many decimals.
pub fn percent(share: f64, decimals: usize) -> String {
    if share.is_finite() { format!("{:.decimals$} %", 100.0 * share) } else { "–".to_owned() }
}

/// A ratio: `1.25×`.
pub fn times(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.2}×") } else { "–".to_owned() }
}

/// `59s`, `12m 05s`, `3h 07m`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_061_591_040].map(grouped), ["0", "999", "1,000", "1,061,591,040"]);
        let sizes = [0, 999, 1000, 9_960, 999_600, 4_246_364_160, u64::MAX];
        assert_eq!(sizes.map(bytes), ["0 B", "999 B", "1.0 kB", "10 kB", "1.0 MB", "4.2 GB", "18446744 TB"]);
        assert_eq!(
            [1.234, 9.999, 12.34, 99.97, 12_345.6].map(rate),
            ["1.23", "10.0", "12.3", "100", "12,346"]
        );
        assert_eq!(
            (fixed(1.25, 1), percent(0.125, 1), times(2.0)),
            ("1.2".into(), "12.5 %".into(), "2.00×".into())
        );
        for none in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
            assert_eq!([rate(none), fixed(none, 3), percent(none, 1), times(none)], ["–"; 4]);
        }
        let times = [59, 60, 725, 3600, 11_240].map(Duration::from_secs);
        assert_eq!(times.map(duration), ["59s", "1m 00s", "12m 05s", "1h 00m", "3h 07m"]);
    }
}
