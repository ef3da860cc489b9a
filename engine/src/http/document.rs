//! JSON documents of a request: read as docker's Go reads them, and refused in its words.

use crate::error::Error;
use proto::docker::{container, exec, volume};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A document that a client may send.
pub(crate) trait Document: DeserializeOwned {
    /// Go's type, and the name under which its members are complained of.
    const TYPE: (&'static str, &'static str);
}

impl Document for container::CreateRequest {
    const TYPE: (&'static str, &'static str) = ("container.CreateRequest", "");
}

impl Document for container::UpdateRequest {
    const TYPE: (&'static str, &'static str) = ("container.UpdateConfig", "UpdateConfig");
}

impl Document for exec::ExecCreateRequest {
    const TYPE: (&'static str, &'static str) = ("container.ExecOptions", "ExecOptions");
}

impl Document for exec::ExecStartRequest {
    const TYPE: (&'static str, &'static str) = ("container.ExecStartOptions", "ExecStartOptions");
}

impl Document for volume::CreateRequest {
    const TYPE: (&'static str, &'static str) = ("volume.CreateOptions", "CreateOptions");
}

impl Document for proto::docker::image::AuthConfig {
    const TYPE: (&'static str, &'static str) = ("registry.AuthConfig", "AuthConfig");
}

/// The document, or docker's sentence without the words `invalid JSON: ` before it.
pub(crate) fn parse<T: Document>(bytes: &[u8]) -> Result<T, String> {
    // Go takes bytes that are no UTF-8 within a text as U+FFFD.
    let text = String::from_utf8_lossy(bytes);
    let value: Value = serde_json::from_str(&text).map_err(|error| syntax(&text, &error))?;
    let value = match value {
        Value::Null => Value::Object(serde_json::Map::new()),
        value => value,
    };
    proto::docker::from_value(value.clone()).map_err(|error| mismatch::<T>(&value, &error))
}

/// The same as the refusal of a request.
pub(crate) fn read<T: Document>(bytes: &[u8]) -> Result<T, Error> {
    parse(bytes).map_err(|sentence| match sentence.as_str() {
        AFTER => Error::invalid(sentence),
        _ => Error::invalid(format!("invalid JSON: {sentence}")),
    })
}

const AFTER: &str = "unexpected content after JSON";

/// encoding/json's words for what serde_json calls otherwise.
fn syntax(text: &str, error: &serde_json::Error) -> String {
    let words = error.to_string();
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    if words.starts_with("recursion limit exceeded") {
        return "exceeded max depth".to_owned();
    }
    if words.starts_with("trailing characters") {
        return AFTER.to_owned();
    }
    const PLACES: [(&str, &str); 7] = [
        ("expected value", "looking for beginning of value"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of value"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected `:`", "after object key"),
        ("invalid number", "in numeric literal"),
    ];
    let character = text
        .lines()
        .nth(error.line().saturating_sub(1))
        .and_then(|line| line.as_bytes().get(error.column().saturating_sub(1)).copied())
        .filter(u8::is_ascii_graphic);
    match (PLACES.iter().find(|(theirs, _)| words.starts_with(theirs)), character) {
        (Some((_, place)), Some(character)) => {
            format!("invalid character '{}' {place}", char::from(character))
        }
        _ => words,
    }
}

/// What stands at the wrong place, where that is, and what should stand there.
fn mismatch<T: Document>(value: &Value, error: &serde_json::Error) -> String {
    let (kind, name) = T::TYPE;
    let words = error.to_string();
    let Some(members) = value.as_object() else {
        return format!("json: cannot unmarshal {} into Go value of type {kind}", kind_of(value, ""));
    };
    // The reader does not say which member it was; each alone does.
    let is_wrong = |key: &&String| {
        let one = serde_json::Map::from_iter([((*key).clone(), members[*key].clone())]);
        proto::docker::from_value::<T>(Value::Object(one)).is_err()
    };
    let Some(key) = members.keys().find(is_wrong) else { return words };
    let expected = words.split("expected ").nth(1).unwrap_or("");
    let (path, found) = culprit(key, &members[key], &words);
    let Some(wanted) = go_type(expected) else {
        return match words.contains("untagged enum") {
            true => format!("json: cannot unmarshal {} into Go value of type string", kind_of(found, "")),
            false => words,
        };
    };
    format!(
        "json: cannot unmarshal {} into Go struct field {name}.{path} of type {wanted}",
        kind_of(found, expected)
    )
}

/// The first member, from the outside in, that is what the reader complains of.
fn culprit<'a>(path: &str, value: &'a Value, words: &str) -> (String, &'a Value) {
    if complains_of(words, value) {
        return (path.to_owned(), value);
    }
    let members = value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value));
    let elements = value.as_array().into_iter().flatten();
    let elements = elements.enumerate().map(|(index, value)| (index.to_string(), value));
    let mut inner =
        members.chain(elements).map(|(key, value)| culprit(&format!("{path}.{key}"), value, words));
    inner.find(|(_, value)| complains_of(words, value)).unwrap_or((path.to_owned(), value))
}

fn complains_of(words: &str, value: &Value) -> bool {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("boolean `{value}`"),
        // Written by each of the two in its own way.
        Value::Number(number) if number.is_f64() => "floating point ".to_owned(),
        Value::Number(number) => format!("integer `{number}`"),
        Value::String(text) => format!("string {text:?}"),
        Value::Array(_) => "sequence".to_owned(),
        Value::Object(_) => "map".to_owned(),
    };
    ["invalid type: ", "invalid value: "].iter().any(|start| words.starts_with(&format!("{start}{found}")))
}

fn kind_of(value: &Value, expected: &str) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        // A number that the member's own kind of number cannot hold is shown.
        Value::Number(number) if expected.starts_with(['i', 'u']) => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn go_type(expected: &str) -> Option<String> {
    Some(match expected {
        "a string" => "string".to_owned(),
        "a boolean" => "bool".to_owned(),
        "a sequence" => "[]string".to_owned(),
        "a map" => "map[string]string".to_owned(),
        "i8" | "i16" | "i32" | "i64" => expected.replacen('i', "int", 1),
        "u8" | "u16" | "u32" | "u64" => expected.replacen('u', "uint", 1),
        _ => format!("container.{}", expected.strip_prefix("struct ")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::docker::container::CreateRequest;

    #[test]
    fn refusals_are_in_gos_words() {
        let field = |what: &str| format!("json: cannot unmarshal {what}");
        for (body, sentence) in [
            ("{", "unexpected EOF".to_owned()),
            ("{} {}", AFTER.to_owned()),
            ("xx", "invalid character 'x' looking for beginning of value".to_owned()),
            ("{1:2}", "invalid character '1' looking for beginning of object key string".to_owned()),
            ("[]", field("array into Go value of type container.CreateRequest")),
            ("5", field("number into Go value of type container.CreateRequest")),
            (r#"{"Image":5}"#, field("number into Go struct field .Image of type string")),
            (
                r#"{"Image":"x","HostConfig":[]}"#,
                field("array into Go struct field .HostConfig of type container.HostConfig"),
            ),
            (
                r#"{"HostConfig":{"Memory":"x"}}"#,
                field("string into Go struct field .HostConfig.Memory of type int64"),
            ),
            (
                r#"{"HostConfig":{"Memory":1.5}}"#,
                field("number 1.5 into Go struct field .HostConfig.Memory of type int64"),
            ),
            (r#"{"Cmd":{"a":1}}"#, field("object into Go value of type string")),
            (r#"{"Labels":["a"]}"#, field("array into Go struct field .Labels of type map[string]string")),
        ] {
            let refused = parse::<CreateRequest>(body.as_bytes()).unwrap_err();
            assert_eq!(refused, sentence, "{body}");
        }
        assert_eq!(parse::<CreateRequest>(&b"[".repeat(20_000)).unwrap_err(), "exceeded max depth");
        assert_eq!(parse::<CreateRequest>(b"null").unwrap(), CreateRequest::default());
        assert_eq!(parse::<CreateRequest>(b"{\"Image\":\"\xff\"}").unwrap().config.image, "\u{fffd}");
    }
}
