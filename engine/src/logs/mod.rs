//! A container's log: its options, and the reading side. The shim writes.

mod json_file;

pub(crate) use json_file::stream;

use crate::clock::Timestamp;
use crate::containers::record::Record;
use crate::error::Error;
use proto::docker::Strings;

const KNOWN: &[&str] = &[
    "max-size",
    "max-file",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
    "max-buffer-size",
];

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) follow: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// The last so many entries; none is all.
    pub(crate) tail: Option<usize>,
    pub(crate) timestamps: bool,
    pub(crate) details: bool,
}

/// Refuses options the json-file driver does not have or cannot follow.
pub(crate) fn check_options(options: &Strings) -> Result<(), Error> {
    for (key, value) in options {
        let wrong = |reason: &str| Err(Error::invalid(format!("invalid value for {key}: {value}: {reason}")));
        match key.as_str() {
            "max-size" if value != "-1" && crate::config::parse_size(value).is_none_or(|size| size == 0) => {
                return wrong("not a size");
            }
            "max-file" if value.parse::<u32>().ok().is_none_or(|count| count < 1) => {
                return wrong("max-file cannot be less than 1");
            }
            "compress" if value != "false" => return Err(Error::unimplemented("log option compress")),
            "mode" if value != "blocking" && value != "non-blocking" => {
                return Err(Error::invalid(format!("logger: logging mode not supported: {value}")));
            }
            key if !KNOWN.contains(&key) => {
                return Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver")));
            }
            _ => {}
        }
    }
    if options.contains_key("max-file") && !options.contains_key("max-size") && options["max-file"] != "1" {
        return Err(Error::invalid("max-file option requires max-size to be set"));
    }
    Ok(())
}

/// Bytes after which the shim starts a new file; 0 is never.
pub(crate) fn max_size(options: &Strings) -> u64 {
    options.get("max-size").and_then(|text| crate::config::parse_size(text)).map_or(0, |size| size as u64)
}

pub(crate) fn max_file(options: &Strings) -> u32 {
    options.get("max-file").and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Written with every line: the labels and variables the options name.
pub(crate) fn attributes(options: &Strings, record: &Record) -> Strings {
    let mut attributes = Strings::new();
    let names = |key: &str| -> Vec<String> {
        options.get(key).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    for label in names("labels") {
        if let Some(value) = record.config.labels.as_ref().and_then(|labels| labels.get(&label)) {
            attributes.insert(label, value.clone());
        }
    }
    for name in names("env") {
        let variable =
            record.config.env.iter().flatten().filter_map(|v| v.split_once('=')).find(|(n, _)| *n == name);
        if let Some((_, value)) = variable {
            attributes.insert(name, value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        attributes.insert("tag".to_owned(), tag.clone());
    }
    attributes
}

/// `tail`: a number, `all` or nothing; docker takes anything else as all.
pub(crate) fn parse_tail(text: &str) -> Option<usize> {
    text.parse().ok()
}
