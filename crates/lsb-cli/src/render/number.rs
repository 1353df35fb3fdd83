//! Numbers as people read them.

/// Bytes with a decimal unit: `5.78 MB`.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut x = n as f64;
    let mut unit = 0;
    while x >= 999.5 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{} {}", digits(x), units[unit]) }
}

/// Three significant digits.
fn digits(x: f64) -> String {
    if x >= 99.95 {
        format!("{x:.0}")
    } else if x >= 9.995 {
        format!("{x:.1}")
    } else {
        format!("{x:.2}")
    }
}

/// A count with a decimal unit: `2.89 M`.
pub(crate) fn count(n: u64) -> String {
    let units = ["", " k", " M", " G", " T"];
    let mut x = n as f64;
    let mut unit = 0;
    while x >= 999.5 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    if unit == 0 { n.to_string() } else { format!("{}{}", digits(x), units[unit]) }
}

/// dB, or what stands in for infinity.
pub(crate) fn decibel(x: f64) -> String {
    if x == f64::INFINITY {
        "exact".into()
    } else if x == f64::NEG_INFINITY {
        "none".into()
    } else {
        format!("{x:.2}")
    }
}

/// Parses a size such as `2.4GB`, `300MiB`, `5000000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = (text[..at].replace('_', ""), text[at..].trim());
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("\"{unit}\" is no unit; use MB, GB, MiB, GiB or plain bytes")),
    };
    let x: f64 = number.parse().map_err(|_| format!("\"{text}\" is no size; write it like 2.4GB"))?;
    let n = x * factor;
    if (1.0..9e18).contains(&n) { Ok(n.round() as u64) } else { Err(format!("\"{text}\" is out of range")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print_with_decimal_units() {
        assert_eq!(parse_bytes("2.4GB"), Ok(2_400_000_000));
        assert_eq!(parse_bytes("1 MiB"), Ok(1 << 20));
        assert_eq!(parse_bytes("5_000"), Ok(5000));
        for bad in ["", "GB", "1XB", "-1", "1e30GB", "0"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((bytes(999).as_str(), bytes(5_775_872).as_str()), ("999 B", "5.78 MB"));
        assert_eq!(bytes(999_600), "1.00 MB");
        assert_eq!(count(2_890_000), "2.89 M");
    }
}
