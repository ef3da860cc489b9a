//! What `--log-opt` says, with docker's defaults and words.

use crate::config::parse_size;
use crate::containers::record::Record;
use crate::error::Error;
use proto::docker::Strings;
use regex::Regex;

/// The options of a log that a shim writes, json-file or local.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Bytes after which the shim starts a new file; 0 is never.
    pub(crate) max_size: u64,
    pub(crate) max_file: u32,
    pub(crate) compress: bool,
    /// Bytes that may wait for the log's disk; 0 where the container waits for it.
    pub(crate) max_buffer: u64,
}

const JSON_FILE: &[&str] =
    &["max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"];
const LOCAL: &[&str] = &["max-size", "max-file", "compress"];
/// Of every driver.
const COMMON: &[&str] = &["mode", "max-buffer-size"];
/// What waits for the disk with `mode=non-blocking` alone.
const MAX_BUFFER: u64 = 1 << 20;

/// Refuses options that the driver does not have or cannot follow.
pub(crate) fn check_options(driver: &str, options: &Strings) -> Result<(), Error> {
    if driver == "none" {
        return Ok(());
    }
    max_buffer(options).map_err(Error::invalid)?;
    let (known, refusal): (&[&str], _) = match driver {
        "local" => (LOCAL, "for log driver local"),
        _ => (JSON_FILE, "for json-file log driver"),
    };
    if let Some(key) =
        options.keys().find(|key| ![known, COMMON].iter().any(|known| known.contains(&key.as_str())))
    {
        return Err(Error::invalid(format!("unknown log opt '{key}' {refusal}")));
    }
    let wrong = |reason: String| Error::invalid(format!("failed to initialize logging driver: {reason}"));
    LogOptions::parse(driver, options).map_err(wrong)?;
    if driver == "local" {
        return Ok(());
    }
    for key in ["labels-regex", "env-regex"] {
        pattern(options, key).map_err(wrong)?;
    }
    let none = |_: &str| Some(String::new());
    expand(options.get("tag").map_or("", String::as_str), none).map(drop).map_err(wrong)
}

/// What the mode says, with the size: 0 is blocking.
fn max_buffer(options: &Strings) -> Result<u64, String> {
    let size = options.get("max-buffer-size");
    match (options.get("mode").map_or("", String::as_str), size) {
        ("" | "blocking", None) => Ok(0),
        ("" | "blocking", Some(_)) => {
            Err("logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned())
        }
        ("non-blocking", None) => Ok(MAX_BUFFER),
        ("non-blocking", Some(text)) => {
            let size = parse_size(text).and_then(|size| u64::try_from(size).ok());
            let wrong = || format!("error parsing option max-buffer-size: invalid size: '{text}'");
            // One line waits in any case.
            size.map(|size| size.max(1)).ok_or_else(wrong)
        }
        (other, _) => Err(format!("logger: logging mode not supported: {other}")),
    }
}

impl LogOptions {
    /// Of options that may be wrong; in docker's order.
    pub(crate) fn parse(driver: &str, options: &Strings) -> Result<LogOptions, String> {
        let max_buffer = max_buffer(options)?;
        let parsed = match driver {
            "local" => LogOptions::parse_local(options),
            _ => LogOptions::parse_json_file(options),
        };
        parsed.map(|parsed| LogOptions { max_buffer, ..parsed })
    }

    /// A local log is bounded and compressed unless it is said otherwise.
    fn parse_local(options: &Strings) -> Result<LogOptions, String> {
        let mut parsed =
            LogOptions { max_size: 20_000_000, max_file: 5, compress: true, ..LogOptions::default() };
        let wrong = |key: &str, value: &str, why: String| format!("invalid value for {key}: {value}: {why}");
        if let Some(text) = options.get("max-size") {
            let size = decimal_size(text).ok_or_else(|| format!("invalid size: '{text}'"));
            parsed.max_size = size.map_err(|why| wrong("max-size", text, why))?;
        }
        if let Some(text) = options.get("max-file") {
            let count = atoi(text).map_err(|why| wrong("max-file", text, why))?;
            parsed.max_file =
                u32::try_from(count).map_err(|_| "max file count cannot be less than 0".to_owned())?;
        }
        if let Some(text) = options.get("compress") {
            parsed.compress = parse_bool(text).map_err(|why| wrong("compress", text, why))?;
        }
        if parsed.max_size == 0 {
            return Err("max size should be a positive number".to_owned());
        }
        if parsed.compress && parsed.max_file <= 1 {
            return Err("compression cannot be enabled when max file count is 1".to_owned());
        }
        Ok(LogOptions { max_file: parsed.max_file.max(1), ..parsed })
    }

    fn parse_json_file(options: &Strings) -> Result<LogOptions, String> {
        let mut parsed = LogOptions { max_file: 1, ..LogOptions::default() };
        if let Some(text) = options.get("max-size") {
            parsed.max_size = decimal_size(text).ok_or_else(|| format!("invalid size: '{text}'"))?;
            if parsed.max_size == 0 {
                return Err("max-size must be a positive number".to_owned());
            }
        }
        if let Some(text) = options.get("max-file") {
            let count = atoi(text)?;
            parsed.max_file = u32::try_from(count)
                .ok()
                .filter(|count| *count > 0)
                .ok_or("max-file cannot be less than 1")?;
        }
        if let Some(text) = options.get("compress") {
            parsed.compress = parse_bool(text)?;
        }
        if parsed.compress && (parsed.max_file < 2 || parsed.max_size == 0) {
            return Err(
                "compress cannot be true when max-file is less than 2 or max-size is not set".to_owned()
            );
        }
        Ok(parsed)
    }
}

/// A log's size is in powers of ten, whatever the letter; other sizes are in powers of two.
fn decimal_size(text: &str) -> Option<u64> {
    let binary = parse_size(text)? as u64;
    let letters = text.trim().trim_start_matches(|c: char| c.is_ascii_digit()).to_ascii_lowercase();
    let power = "kmgt".find(letters.chars().next().unwrap_or(' ')).map_or(0, |at| at as u32 + 1);
    // `ki` is of two all the same.
    let factor = if letters.contains('i') { 1024_u64 } else { 1000 };
    (binary / 1024_u64.pow(power)).checked_mul(factor.pow(power))
}

fn atoi(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

fn pattern(options: &Strings, key: &str) -> Result<Option<Regex>, String> {
    let Some(text) = options.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    // The last line says what is wrong; those before it draw where.
    Regex::new(text).map(Some).map_err(|error| {
        let text = error.to_string();
        format!(
            "error parsing regexp: {}",
            text.lines().last().unwrap_or_default().trim_start_matches("error: ")
        )
    })
}

/// Written with every line: the labels and variables that the options name, and the tag.
pub(crate) fn attributes(options: &Strings, record: &Record, id: &str) -> Strings {
    let labels: Vec<(&str, &str)> =
        record.config.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let variables: Vec<(&str, &str)> =
        record.config.env.iter().flatten().filter_map(|variable| variable.split_once('=')).collect();
    let mut attributes = Strings::new();
    for (kind, given) in [("labels", labels), ("env", variables)] {
        let names: Vec<&str> = options.get(kind).map(|list| list.split(',').collect()).unwrap_or_default();
        let pattern = pattern(options, &format!("{kind}-regex")).ok().flatten();
        let is_wanted =
            |name: &str| names.contains(&name) || pattern.as_ref().is_some_and(|p| p.is_match(name));
        let wanted = given.into_iter().filter(|(name, _)| is_wanted(name));
        attributes.extend(wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let template = options.get("tag").map_or("", String::as_str);
    let tag = expand(template, |field| tag_field(field, record, id)).unwrap_or_default();
    if !tag.is_empty() {
        attributes.insert("tag".to_owned(), tag);
    }
    attributes
}

fn tag_field(field: &str, record: &Record, id: &str) -> Option<String> {
    let short = |id: &str| id.chars().take(12).collect();
    Some(match field {
        "ID" => short(id),
        "FullID" => id.to_owned(),
        "Name" => record.name.clone(),
        "ImageID" => short(&record.image_id),
        "ImageFullID" => record.image_id.clone(),
        "ImageName" => record.config.image.clone(),
        "Command" => record.arguments.join(" "),
        "DaemonName" => "docker".to_owned(),
        "Hostname" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        _ => return None,
    })
}

const FIELDS: [&str; 9] =
    ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "Command", "DaemonName", "Hostname"];

/// A tag's template: of Go's language, `{{.Field}}`.
fn expand(template: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or("template: log-tag:1: unclosed action")?;
        let field = action.trim().strip_prefix('.').filter(|field| FIELDS.contains(field));
        let field = field.ok_or_else(|| {
            let fields = FIELDS.map(|field| format!("{{{{.{field}}}}}")).join(", ");
            format!("template: log-tag: {{{{{action}}}}} is not understood: use {fields}")
        })?;
        text.push_str(before);
        text.push_str(&value(field).unwrap_or_default());
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Strings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// The sentences of docker 20.10.
    #[test]
    fn what_cannot_be_is_refused_in_docker_s_words() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[("max-size", "x")], "invalid size: 'x'"),
            (&[("max-size", "-1")], "invalid size: '-1'"),
            (&[("max-size", "0")], "max-size must be a positive number"),
            (&[("max-file", "0")], "max-file cannot be less than 1"),
            (&[("max-file", "x")], "strconv.Atoi: parsing \"x\": invalid syntax"),
            (&[("compress", "x")], "strconv.ParseBool: parsing \"x\": invalid syntax"),
            (
                &[("compress", "true"), ("max-size", "1k")],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
            (&[("tag", "{{")], "template: log-tag:1: unclosed action"),
        ];
        for (given, sentence) in table {
            let error = check_options("json-file", &options(given)).unwrap_err();
            assert_eq!(error.to_string(), format!("failed to initialize logging driver: {sentence}"));
        }
        for (given, part) in
            [(("labels-regex", "("), "error parsing regexp: "), (("tag", "{{.X}}"), "{{.X}}")]
        {
            let error = check_options("json-file", &options(&[given])).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_buffer_s_size_is_binary() {
        let size =
            |given: &[(&str, &str)]| LogOptions::parse("json-file", &options(given)).map(|o| o.max_buffer);
        let non_blocking = ("mode", "non-blocking");
        assert_eq!(size(&[]), Ok(0));
        assert_eq!(size(&[("mode", "blocking")]), Ok(0));
        assert_eq!(size(&[non_blocking]), Ok(1 << 20));
        assert_eq!(size(&[non_blocking, ("max-buffer-size", "4k")]), Ok(4096));
        assert_eq!(size(&[non_blocking, ("max-buffer-size", "0")]), Ok(1));
    }

    #[test]
    fn sizes_are_decimal() {
        let given = options(&[("max-size", "10k"), ("max-file", "3"), ("compress", "1")]);
        let expected = LogOptions { max_size: 10_000, max_file: 3, compress: true, max_buffer: 0 };
        assert_eq!(LogOptions::parse("json-file", &given), Ok(expected));
        let sizes = ["7", "1m", "2GB", "1KiB", "x"].map(decimal_size);
        assert_eq!(sizes, [Some(7), Some(1_000_000), Some(2_000_000_000), Some(1024), None]);
        assert_eq!(
            check_options("json-file", &options(&[("max-file", "3")])).map_err(|e| e.to_string()),
            Ok(())
        );
    }
}
