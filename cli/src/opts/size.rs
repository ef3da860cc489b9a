//! Sizes in bytes: `64m`, `1.5g`, `512`, in powers of 1024 (docker's RAMInBytes).

/// Bytes, or what is wrong.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let unit = lower[digits.len()..].trim();
    let factor: i64 = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit == "i" => return Err(invalid()),
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return Err(invalid()),
    };
    let number: f64 = digits.parse().map_err(|_| invalid())?;
    if !(0.0..9e18).contains(&(number * factor as f64)) {
        return Err(invalid());
    }
    Ok((number * factor as f64) as i64)
}

/// As [`parse`], and `-1` for no limit.
pub(crate) fn parse_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, expected) in [
            ("512", 512),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("10 KB", 10 << 10),
            ("1GiB", 1 << 30),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1mm", "1e30g", "one"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_or_unlimited("-1"), Ok(-1));
    }
}
