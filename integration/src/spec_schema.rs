//! The runtime-spec's own JSON schema: what it lists, what is not of it, and documents made from it. It is Debian's
//! package; RUNTIME_SPEC_SCHEMA=DIR is that of another version.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

const INSTALLED: &str = "/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema";

/// Sections for other kinds of machines: refused as a whole, whatever is in them.
const FOREIGN: [&str; 5] = ["solaris", "windows", "vm", "zos", "freebsd"];

/// The schema with every `$ref` put in its place.
pub struct Schema(BTreeMap<String, Value>);

impl Schema {
    pub fn load() -> Schema {
        let dir = std::env::var_os("RUNTIME_SPEC_SCHEMA").map_or_else(|| INSTALLED.into(), PathBuf::from);
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| {
            let package = "Debian's golang-github-opencontainers-specs-dev";
            panic!("{}: {error}: {package} is not installed", dir.display())
        });
        let files = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"));
        Schema(files.map(|path| (name_of(&path), read(&path))).collect())
    }

    pub fn has(&self, file: &str) -> bool {
        self.0.contains_key(file)
    }

    pub fn document(&self, file: &str) -> Value {
        let mut schema = self.0.get(file).unwrap_or_else(|| panic!("no {file} in the schema")).clone();
        for (name, section) in schema["properties"].as_object_mut().expect("properties") {
            if FOREIGN.contains(&name.as_str()) {
                *section = json!({});
            }
        }
        self.expand(file, &schema)
    }

    fn expand(&self, file: &str, node: &Value) -> Value {
        let Value::Object(map) = node else { return node.clone() };
        let mut whole = json!({});
        for (key, value) in map {
            match (key.as_str(), value) {
                ("$ref", Value::String(target)) => {
                    let (other, pointer) = target.split_once('#').expect("FILE#POINTER");
                    let other = if other.is_empty() { file } else { other };
                    let target = self.0.get(other).and_then(|root| root.pointer(pointer)).expect(target);
                    merge(&mut whole, self.expand(other, target));
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                    parts.iter().for_each(|part| merge(&mut whole, self.expand(file, part)));
                }
                _ => merge(&mut whole, json!({key: self.expand(file, value)})),
            }
        }
        whole
    }
}

pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        (into, from) => *into = from,
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

pub fn read(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn has_type(schema: &Value, value: &Value) -> bool {
    match schema["type"].as_str().unwrap_or_default() {
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

/// What in a document is not as the schema says; empty when all is.
pub fn violations(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !has_type(schema, value) {
        found.push(format!("{place}: {value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|list| !list.contains(value)) {
        found.push(format!("{place}: {value} is none of {}", schema["enum"]));
    }
    let number = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    if let Some(n) = number(value) {
        let (low, high) = (number(&schema["minimum"]), number(&schema["maximum"]));
        if low.is_some_and(|low| n < low) || high.is_some_and(|high| n > high) {
            found.push(format!("{place}: {n} is out of its range"));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            found.push(format!("{place}.{name} is missing"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(name).or_else(|| entries(schema));
        found.extend(
            known.map_or_else(Vec::new, |known| violations(known, value, &format!("{place}.{name}"))),
        );
    }
    for value in value.as_array().into_iter().flatten() {
        found.extend(violations(&schema["items"], value, &format!("{place}[]")));
    }
    found
}

/// What a map holds that has no names of its own.
fn entries(schema: &Value) -> Option<&Value> {
    let patterns = schema["patternProperties"].as_object().and_then(|patterns| patterns.values().next());
    patterns.or_else(|| schema.get("additionalProperties").filter(|entry| entry.is_object()))
}

/// A property by its names from the root on, `[]` for an element of a list and `{}` for one of a map.
#[derive(Clone)]
pub struct Property {
    pub path: Vec<String>,
    pub schema: Value,
}

impl Property {
    fn name(&self) -> &str {
        self.path.last().expect("a name")
    }

    /// What a message may name for it: itself, or the list that it is in an element of.
    pub fn names(&self) -> Vec<String> {
        let around = self.path.iter().rposition(|step| matches!(step.as_str(), "[]" | "{}"));
        let names = [Some(self.name()), around.map(|mark| self.path[mark - 1].as_str())];
        names.into_iter().flatten().map(str::to_ascii_lowercase).collect()
    }

    pub fn place(&self) -> String {
        dotted(&self.path)
    }
}

fn dotted(path: &[String]) -> String {
    path.join(".").replace(".[]", "[]").replace(".{}", "{}")
}

fn properties(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Property>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        found.push(Property { path: path.clone(), schema: schema.clone() });
        properties(schema, path, found);
        path.pop();
    }
    for (mark, below) in [("[]", schema.get("items")), ("{}", entries(schema))] {
        if let Some(below) = below {
            path.push(mark.to_owned());
            properties(below, path, found);
            path.pop();
        }
    }
}

/// Documents of a schema. Where its types alone give nothing that can work, there is a hint: what the place of a property
/// ends with, and a value.
pub struct Generator {
    pub schema: Value,
    pub hints: Vec<(&'static str, Value)>,
}

impl Generator {
    pub fn properties(&self) -> Vec<Property> {
        let mut found = Vec::new();
        properties(&self.schema, &mut Vec::new(), &mut found);
        assert!(found.len() > 150, "only {} properties", found.len());
        found
    }

    pub fn sample(&self, schema: &Value, path: &[String]) -> Value {
        let place = dotted(path);
        let fits = |end: &str| place == *end || end.contains(['.', '[']) && place.ends_with(end);
        if let Some((_, value)) = self.hints.iter().find(|(end, _)| fits(end)) {
            return value.clone();
        }
        if let Some(list) = schema["enum"].as_array() {
            return list[0].clone();
        }
        let below = |schema: &Value, name: &str| self.sample(schema, &[path, &[name.to_owned()]].concat());
        match schema["type"].as_str().unwrap_or_default() {
            "boolean" => json!(true),
            "integer" => json!(1),
            "string" => json!("sample"),
            "array" => json!([below(&schema["items"], "[]")]),
            _ => {
                let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let mut map: Map<_, _> = required
                    .map(|name| (name.to_owned(), below(&schema["properties"][name], name)))
                    .collect();
                if let Some(entry) = entries(schema) {
                    map.insert("sample".into(), below(entry, "{}"));
                }
                Value::Object(map)
            }
        }
    }

    /// A sample, and all that the schema lists, and the ends of its range.
    pub fn values(&self, property: &Property) -> Vec<Value> {
        let schema = &property.schema;
        let mut values = vec![self.sample(schema, &property.path)];
        values.extend(schema["enum"].as_array().into_iter().flatten().cloned());
        match schema["type"].as_str().unwrap_or_default() {
            "boolean" => values.push(json!(false)),
            "integer" => {
                let end = |name: &str, none: Value| schema.get(name).cloned().unwrap_or(none);
                values.extend([end("minimum", json!(i64::MIN)), end("maximum", json!(i64::MAX))]);
            }
            _ => {}
        }
        values.dedup();
        values
    }

    /// Put the property into a document, into a new element where it belongs to one.
    pub fn put(&self, document: &mut Value, property: &Property, value: &Value) {
        let (mut node, mut schema) = (document, &self.schema);
        for (depth, step) in property.path.iter().enumerate() {
            let path = &property.path[..=depth];
            (node, schema) = match step.as_str() {
                "[]" => {
                    let list = node.as_array_mut().expect("a list");
                    list.push(self.sample(&schema["items"], path));
                    (list.last_mut().expect("an element"), &schema["items"])
                }
                "{}" => {
                    let entry = entries(schema).expect("a map");
                    node["sample"] = self.sample(entry, path);
                    (&mut node["sample"], entry)
                }
                name => {
                    let (node, schema) = (&mut node[name], &schema["properties"][name]);
                    if node.is_null() {
                        let is_list = schema["type"] == "array";
                        *node = if is_list { json!([]) } else { self.sample(schema, path) };
                    }
                    (node, schema)
                }
            };
        }
        *node = value.clone();
    }
}

/// One of each JSON type that the schema does not want there, and lists and maps of what it does not want in them.
pub fn wrong_values(schema: &Value) -> Vec<Value> {
    let all = [json!("sample"), json!(7), json!(1.5), json!(true), json!([]), json!([7]), json!({})];
    let mut wrong: Vec<Value> = all.into_iter().filter(|value| !has_type(schema, value)).collect();
    if let Some(items) = schema.get("items") {
        wrong.extend(wrong_values(items).first().map(|item| json!([item])));
    }
    if let Some(entry) = entries(schema) {
        wrong.extend(wrong_values(entry).first().map(|entry| json!({"sample": entry})));
    }
    wrong
}
