//! `--format`: Go templates over JSON documents, with docker's functions.

use crate::exit::{Failure, Result};
use gtmpl_ng::{Context, FuncError, Template, Value};
use std::collections::HashMap;

/// A template that has been read.
pub(crate) struct Format {
    template: Template,
}

impl Format {
    pub(crate) fn parse(text: &str) -> Result<Format> {
        let mut template = Template::default();
        template.add_funcs(&FUNCTIONS);
        let text = unescape(&labels_by_index(text));
        template
            .parse(&text)
            .map_err(|error| Failure::new(64, format!("template parsing error: {error}")))?;
        Ok(Format { template })
    }

    /// One document through the template.
    pub(crate) fn render(&self, document: &serde_json::Value) -> Result<String> {
        let context = Context::from(to_value(document));
        self.template
            .render(&context)
            .map_err(|error| Failure::new(1, format!("template parsing error: {error}")))
    }
}

/// `.Label "x"` is a method in docker, which a document cannot have: it reads the map of labels.
fn labels_by_index(text: &str) -> String {
    text.replace(".Label \"", "index .LabelMap \"").replace(".Label `", "index .LabelMap `")
}

/// A shell hands `\t` and `\n` over as two characters; docker reads them in a format.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

const FUNCTIONS: [(&str, gtmpl_ng::Func); 9] = [
    ("json", json),
    ("split", split),
    ("join", join),
    ("title", title),
    ("lower", lower),
    ("upper", upper),
    ("pad", pad),
    ("truncate", truncate),
    ("println", println_),
];

fn argument(args: &[Value], at: usize) -> std::result::Result<&Value, FuncError> {
    args.get(at).ok_or_else(|| FuncError::Generic("wrong number of arguments".to_owned()))
}

fn text(args: &[Value], at: usize) -> std::result::Result<String, FuncError> {
    Ok(match argument(args, at)? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn number(args: &[Value], at: usize) -> std::result::Result<usize, FuncError> {
    match argument(args, at)? {
        Value::Number(number) => Ok(number.as_u64().unwrap_or(0) as usize),
        other => Err(FuncError::Generic(format!("expected a number, got {other}"))),
    }
}

fn json(args: &[Value]) -> std::result::Result<Value, FuncError> {
    Ok(Value::String(to_json(argument(args, 0)?).to_string()))
}

fn split(args: &[Value]) -> std::result::Result<Value, FuncError> {
    let parts = text(args, 0)?.split(&text(args, 1)?).map(|part| Value::String(part.to_owned())).collect();
    Ok(Value::Array(parts))
}

fn join(args: &[Value]) -> std::result::Result<Value, FuncError> {
    let Value::Array(items) = argument(args, 0)? else {
        return Err(FuncError::Generic("join takes a list".to_owned()));
    };
    let items: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    Ok(Value::String(items.join(&text(args, 1)?)))
}

fn title(args: &[Value]) -> std::result::Result<Value, FuncError> {
    let mut out = String::new();
    let mut start = true;
    for c in text(args, 0)?.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !c.is_alphanumeric();
    }
    Ok(Value::String(out))
}

fn lower(args: &[Value]) -> std::result::Result<Value, FuncError> {
    Ok(Value::String(text(args, 0)?.to_lowercase()))
}

fn upper(args: &[Value]) -> std::result::Result<Value, FuncError> {
    Ok(Value::String(text(args, 0)?.to_uppercase()))
}

fn pad(args: &[Value]) -> std::result::Result<Value, FuncError> {
    let (text, before, after) = (text(args, 0)?, number(args, 1)?, number(args, 2)?);
    Ok(Value::String(if text.is_empty() {
        text
    } else {
        format!("{}{text}{}", " ".repeat(before), " ".repeat(after))
    }))
}

fn truncate(args: &[Value]) -> std::result::Result<Value, FuncError> {
    Ok(Value::String(text(args, 0)?.chars().take(number(args, 1)?).collect()))
}

fn println_(args: &[Value]) -> std::result::Result<Value, FuncError> {
    let parts: Vec<String> =
        (0..args.len()).map(|at| text(args, at)).collect::<std::result::Result<_, _>>()?;
    Ok(Value::String(format!("{}\n", parts.join(" "))))
}

fn to_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(items) => Value::Array(items.iter().map(to_value).collect()),
        serde_json::Value::Object(map) => {
            let map: HashMap<String, Value> =
                map.iter().map(|(key, value)| (key.clone(), to_value(value))).collect();
            // A map, not an object: `index` works on it, and a missing key is no error, as with Go's maps.
            Value::Map(map)
        }
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), _, _) => Value::Number(n.into()),
            (_, Some(n), _) => Value::Number(n.into()),
            (_, _, Some(n)) => Value::Number(n.into()),
            _ => Value::Nil,
        },
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(b) => (*b).into(),
        Value::String(text) => text.clone().into(),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Object(map) | Value::Map(map) => {
            let sorted: serde_json::Map<String, serde_json::Value> =
                map.iter().map(|(key, value)| (key.clone(), to_json(value))).collect();
            sorted.into()
        }
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), _, _) => n.into(),
            (_, Some(n), _) => n.into(),
            (_, _, Some(n)) => n.into(),
            _ => serde_json::Value::Null,
        },
        _ => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, json: &str, expected: &str) {
        let document = serde_json::from_str(json).unwrap();
        assert_eq!(Format::parse(template).unwrap().render(&document).unwrap(), expected, "{template}");
    }

    #[test]
    fn what_scripts_write() {
        let document = r#"{"State":{"Pid":42,"Running":true},"Names":["a","b"],"Labels":{"k":"v"},"LabelMap":{"k":"v"}}"#;
        check("{{.State.Pid}}", document, "42");
        check("{{json .State}}", document, r#"{"Pid":42,"Running":true}"#);
        check("{{range .Names}}{{.}},{{end}}", document, "a,b,");
        check("{{join .Names \"/\"}}", document, "a/b");
        check("{{index .Labels \"k\"}}", document, "v");
        check("{{.Label \"k\"}}", document, "v");
        check("{{if .State.Running}}up{{else}}down{{end}}", document, "up");
        check("{{upper (index .Names 0)}}\\t{{len .Names}}", document, "A\t2");
        check("{{range $k, $v := .Labels}}{{$k}}={{$v}}{{end}}", document, "k=v");
    }

    #[test]
    fn a_broken_template_is_refused() {
        assert!(Format::parse("{{.State").is_err());
        assert!(Format::parse("{{nosuch .}}").is_err());
    }
}
