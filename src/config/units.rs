//! Values written with a unit: durations, sizes, rates, port ranges. A bare number is refused, because it hides its unit.

use std::time::Duration;

use super::error::ValueError;

/// Reads a duration: one or more `number unit` pairs with the units d, h, m, s, ms, each at most once, from large to small.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let (number, after) = split_digits(rest);
        let (unit, after) = split_letters(after);
        if number.is_empty() || unit.is_empty() {
            return Err(match (number.is_empty(), after.trim()) {
                (true, _) => ValueError::is_not(text, "a duration"),
                (false, "") => ValueError::lacks(text, "unit"),
                (false, after) => ValueError::part(after, text, "d, h, m, s or ms right behind its number"),
            });
        }
        let factor = units
            .by_ref()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| ValueError::part(unit, text, "a unit, or is not in its place"))?;
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        let sum = millis.and_then(|ms| total_ms.checked_add(ms));
        total_ms = sum.ok_or_else(|| ValueError::TooLarge(text.to_owned()))?;
        rest = after;
    }
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a size in bytes: a number with one of B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024).
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_size(text: &str) -> Result<u64, ValueError> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return Err(ValueError::lacks(text, "unit")),
        _ => return Err(ValueError::part(unit, text, "a unit of size")),
    };
    scale(number, factor, 1).ok_or_else(|| ValueError::is_not(text, "a size"))
}

/// Reads a rate and returns bytes per second. The unit says bits or bytes: `bit/s`, `kbit/s`, `Mbit/s`, `Gbit/s` or
/// `B/s`, `kB/s`, `MB/s`, `GB/s`, all powers of 1000.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_rate(text: &str) -> Result<u64, ValueError> {
    let (number, unit) = split_unit(text);
    let (factor, divisor) = match unit {
        "bit/s" => (1, 8),
        "kbit/s" => (1000, 8),
        "Mbit/s" => (1_000_000, 8),
        "Gbit/s" => (1_000_000_000, 8),
        "B/s" => (1, 1),
        "kB/s" => (1000, 1),
        "MB/s" => (1_000_000, 1),
        "GB/s" => (1_000_000_000, 1),
        "" => return Err(ValueError::lacks(text, "unit")),
        _ => return Err(ValueError::part(unit, text, "a rate whose bits or bytes are spelled out")),
    };
    scale(number, factor, divisor).ok_or_else(|| ValueError::is_not(text, "a rate"))
}

/// Reads `low-high`, both inclusive, neither 0.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_ports(text: &str) -> Result<(u16, u16), ValueError> {
    let (low, high) = text.split_once('-').ok_or_else(|| ValueError::is_not(text, "a range of ports"))?;
    let port = |part: &str| match part.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err(ValueError::part(part.trim(), text, "a port from 1 to 65535")),
        Ok(port) => Ok(port),
    };
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(ValueError::Reversed(text.to_owned()));
    }
    Ok((low, high))
}

/// Writes a duration the way [`parse_duration`] reads it, in its largest whole unit.
pub(crate) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis > 0 && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    format!("{millis}ms")
}

/// Writes a rate of bytes per second the way [`parse_rate`] reads it.
pub(crate) fn rate_text(bytes_per_second: u64) -> String {
    let bits = u128::from(bytes_per_second) * 8;
    for (unit, factor) in [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1000)] {
        if bits > 0 && bits.is_multiple_of(factor) {
            return format!("{}{unit}", bits / factor);
        }
    }
    format!("{bytes_per_second}B/s")
}

/// Writes a size the way [`parse_size`] reads it.
pub(crate) fn size_text(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

/// `number * factor / divisor` of a decimal number with at most 6 digits after the point.
fn scale(number: &str, factor: u64, divisor: u64) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    if fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millionths: u64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<6}").parse().ok()? };
    let whole: u64 = whole.parse().ok()?;
    let scaled = (u128::from(whole) * 1_000_000 + u128::from(millionths)) * u128::from(factor);
    u64::try_from(scaled / (1_000_000 * u128::from(divisor))).ok()
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn split_letters(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_every_unit() {
        for (text, millis) in
            [("200ms", 200), ("0s", 0), ("30s", 30_000), ("10m", 600_000), ("12h", 43_200_000), ("1h30m", 5_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "m", "10 m", "1.5h", "-1s", "5w", "30m1h", "1s1s", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_tell_bits_from_bytes() {
        for (text, bytes) in [
            ("8bit/s", 1),
            ("2Mbit/s", 250_000),
            ("2 Mbit/s", 250_000),
            ("1.5Mbit/s", 187_500),
            ("500kbit/s", 62_500),
            ("1Gbit/s", 125_000_000),
            ("1MB/s", 1_000_000),
            ("125kB/s", 125_000),
        ] {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
        for text in ["2", "2M", "2Mb/s", "2mbit/s", "2Mbps", "Mbit/s", "1.Mbit/s", ".5Mbit/s", "1.5.5MB/s", "-1MB/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn port_ranges_are_ordered_and_without_zero() {
        assert_eq!(parse_ports("49152-65535"), Ok((49152, 65535)));
        assert_eq!(parse_ports("5000-5000"), Ok((5000, 5000)));
        for text in ["", "1", "0-5", "10-5", "1-65536", "a-b", "1-2-3"] {
            assert!(parse_ports(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0u64..10_000_000_000, bytes in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
            prop_assert_eq!(parse_rate(&rate_text(bytes)), Ok(bytes));
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = (parse_duration(&text), parse_rate(&text), parse_size(&text), parse_ports(&text));
        }
    }
}
