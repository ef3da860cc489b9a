//! How words become flags and arguments: long flags with one dash or two, values after `=` or as the next word,
//! flags before and after arguments.

use std::time::Duration;

use super::table::{Entry, Flag};
use crate::error::{Error, Result};

/// What was found: flags in their order, then the other words.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    flags: Vec<(&'static str, String)>,
    pub(super) positionals: Vec<String>,
}

impl Parsed {
    /// The last value given for a flag.
    pub(super) fn value(&self, long: &str) -> Option<&str> {
        self.flags.iter().rev().find(|flag| flag.0 == long).map(|flag| flag.1.as_str())
    }

    /// The same, owned; an empty value counts as not given.
    pub(super) fn text(&self, long: &str) -> Option<String> {
        self.value(long).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    pub(super) fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |flag| flag.0 == long).map(|flag| flag.1.as_str())
    }

    pub(super) fn is_set(&self, long: &str) -> bool {
        self.value(long) == Some("true")
    }

    pub(super) fn number<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>> {
        let parse = |value: &str| {
            value.parse().map_err(|_| {
                Error::invalid(format!(
                    "invalid value {value:?} for flag --{long}: not a number in its range"
                ))
            })
        };
        self.value(long).filter(|value| !value.is_empty()).map(parse).transpose()
    }

    /// A number of bytes: -1, or a number with an optional unit.
    pub(super) fn size(&self, long: &str) -> Result<Option<i64>> {
        let parse = |value: &str| {
            bytes(value).ok_or_else(|| {
                Error::invalid(format!("invalid value {value:?} for flag --{long}: not a size"))
            })
        };
        self.value(long).filter(|value| !value.is_empty()).map(parse).transpose()
    }
}

fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// A user or group id: decimal digits in range and nothing else, never a name (CVE-2024-40635).
pub(super) fn id_number(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { text.parse().ok().filter(|&n| n != u32::MAX) } else { None };
    number.ok_or_else(|| {
        Error::invalid(format!("{text:?} is not a user or group id: a number from 0 to 4294967294"))
    })
}

/// `uid[:gid]`, both numeric.
pub(super) fn user(text: &str) -> Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Ok((id_number(text)?, None)),
        Some((uid, gid)) => Ok((id_number(uid)?, Some(id_number(gid)?))),
    }
}

/// `[controller[,controller]:]path`, the path below the container's own cgroup.
pub(super) fn sub_cgroup(text: &str) -> Result<(Vec<String>, String)> {
    let (controllers, path) = match text.split_once(':') {
        Some((controllers, path)) => (controllers.split(',').map(str::to_owned).collect(), path),
        None => (Vec::new(), text),
    };
    let inside = path.split('/').all(|part| part != "..");
    if inside && !controllers.iter().any(String::is_empty) {
        Ok((controllers, path.to_owned()))
    } else {
        Err(Error::invalid(format!(
            "bad exec --cgroup value: {text} is not a sub cgroup path: [controller[,controller]:]path"
        )))
    }
}

/// A time as Go writes it: numbers with units (`1m30s`, `500ms`); more than none.
pub(super) fn duration(text: &str) -> Result<Duration> {
    let wrong = || Error::invalid(format!("{text:?} is not an interval (1s, 500ms, 1m30s)"));
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        total += number * seconds;
        rest = &unit[end..];
    }
    Duration::try_from_secs_f64(total).ok().filter(|d| !d.is_zero()).ok_or_else(wrong)
}

/// The flags at the front, and all words from the first that is no flag.
pub(super) fn flags_then_rest<'a>(
    words: &'a [String],
    flags: &'static [Flag],
) -> Result<(Parsed, &'a [String])> {
    let mut parsed = Parsed::default();
    let mut rest = words;
    while let [word, tail @ ..] = rest {
        if word == "--" {
            return Ok((parsed, tail));
        }
        if !is_flag(word) {
            break;
        }
        rest = take_flag(word, tail, flags, &mut parsed)?;
    }
    Ok((parsed, rest))
}

/// A command's own words.
pub(super) fn command(words: &[String], entry: &'static Entry) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut rest = words;
    while let [word, tail @ ..] = rest {
        if word == "--" {
            parsed.positionals.extend_from_slice(tail);
            break;
        }
        if !is_flag(word) {
            parsed.positionals.push(word.clone());
            rest = tail;
            if entry.stops_at_argument {
                parsed.positionals.extend_from_slice(tail);
                break;
            }
            continue;
        }
        rest = take_flag(word, tail, entry.flags, &mut parsed)?;
    }
    if parsed.is_set("help") {
        return Ok(parsed);
    }
    let (least, most) = entry.arguments;
    if parsed.positionals.len() < least || parsed.positionals.len() > most {
        let name = entry.name;
        return Err(Error::invalid(match (least, most) {
            (n, m) if n == m => format!("rung: {name:?} requires exactly {n} argument(s)"),
            (n, _) if parsed.positionals.len() < n => {
                format!("rung: {name:?} requires a minimum of {n} argument(s)")
            }
            (_, m) => format!("rung: {name:?} requires a maximum of {m} argument(s)"),
        }));
    }
    Ok(parsed)
}

fn is_flag(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

fn take_flag<'a>(
    word: &str,
    tail: &'a [String],
    flags: &'static [Flag],
    parsed: &mut Parsed,
) -> Result<&'a [String]> {
    let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or(word);
    let (name, value) = match bare.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (bare, None),
    };
    if matches!(name, "help" | "h") {
        parsed.flags.push(("help", "true".into()));
        return Ok(tail);
    }
    let Some(flag) =
        flags.iter().find(|flag| flag.long == name || (!flag.short.is_empty() && flag.short == name))
    else {
        return Err(Error::invalid(format!(
            "flag provided but not defined: -{}",
            word.trim_start_matches('-')
        )));
    };
    if flag.value.is_empty() {
        let value = match value.as_deref() {
            None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => "true",
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => "false",
            Some(other) => {
                return Err(Error::invalid(format!(
                    "invalid value {other:?} for flag --{}: it is true or false",
                    flag.long
                )));
            }
        };
        parsed.flags.push((flag.long, value.into()));
        return Ok(tail);
    }
    if let Some(value) = value {
        parsed.flags.push((flag.long, value));
        return Ok(tail);
    }
    let Some((value, tail)) = tail.split_first() else {
        return Err(Error::invalid(format!("flag needs an argument: -{}", flag.long)));
    };
    parsed.flags.push((flag.long, value.clone()));
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("2MB", Some(2 << 20)),
            ("3GiB", Some(3 << 30)),
            ("-1", Some(-1)),
            ("-2", None),
            ("", None),
            ("x", None),
            ("9999999P", None),
        ] {
            assert_eq!(bytes(text), size, "{text:?}");
        }
    }

    #[test]
    fn intervals_are_as_go_has_them() {
        for (text, millis) in [
            ("1s", Some(1000)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("0s", None),
            ("5", None),
            ("", None),
            ("s", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_millis()), millis, "{text:?}");
        }
    }

    #[test]
    fn ids_are_numbers_or_errors() {
        for (text, id) in [
            ("0", Some(0)),
            ("65535", Some(65535)),
            ("2147483648", Some(1 << 31)),
            ("4294967294", Some(u32::MAX - 1)),
            ("4294967295", None),
            ("4294967296", None),
            ("-1", None),
            ("+1", None),
            ("1 ", None),
            ("root", None),
            ("", None),
        ] {
            assert_eq!(id_number(text).ok(), id, "{text:?}");
        }
        assert_eq!(user("1:2").ok(), Some((1, Some(2))));
        assert!(user("1:").is_err());
    }
}
