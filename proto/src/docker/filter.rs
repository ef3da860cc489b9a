//! The `filters` query parameter: a JSON map of maps, or the older map of lists.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Checked filters: key to the set of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// Why the parameter was refused; docker's texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    Format,
    UnknownKey(String),
    Value {
        key: String,
        value: String,
    },
    /// A value with a limited choice of words.
    Word {
        key: String,
        value: String,
        reason: String,
    },
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilterError::Format => f.write_str("invalid filter"),
            FilterError::UnknownKey(key) => write!(f, "invalid filter '{key}'"),
            FilterError::Value { key, value } => write!(f, "invalid filter '{key}={value}'"),
            FilterError::Word { key, value, reason } => write!(f, "invalid filter '{key}={value}': {reason}"),
        }
    }
}

impl std::error::Error for FilterError {}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// Parses the parameter; empty text is no filters.
    pub fn parse(text: &str) -> Result<Filters, FilterError> {
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let raw: Option<BTreeMap<String, Values>> =
            serde_json::from_str(text).map_err(|_| FilterError::Format)?;
        Ok(Filters(
            raw.unwrap_or_default()
                .into_iter()
                .map(|(key, values)| {
                    let values = match values {
                        Values::Map(map) => map.into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect(),
                        Values::List(list) => list.into_iter().collect(),
                    };
                    (key, values)
                })
                .collect(),
        ))
    }

    /// Refuses keys other than `known`.
    pub fn only(self, known: &[&str]) -> Result<Filters, FilterError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(FilterError::UnknownKey(key.clone())),
            None => Ok(self),
        }
    }

    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// The same filters but `key`.
    pub fn without(&self, key: &str) -> Filters {
        let mut rest = self.clone();
        rest.0.remove(key);
        rest
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    /// The values of `key`, none when it was not given.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// True when `key` was not given or has exactly `value` among its values.
    pub fn exact(&self, key: &str, value: &str) -> bool {
        !self.contains(key) || self.get(key).any(|v| v == value)
    }

    /// True when `key` was not given or `test` holds for one of its values.
    pub fn any(&self, key: &str, test: impl FnMut(&str) -> bool) -> bool {
        !self.contains(key) || self.get(key).any(test)
    }

    /// A boolean key: `None` when not given.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let mut found = None;
        for value in self.get(key) {
            found = Some(match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" => true,
                "0" | "false" | "f" => false,
                _ => {
                    let all: Vec<&str> = self.get(key).collect();
                    let value = format!("[{}]", all.join(" "));
                    return Err(FilterError::Value { key: key.to_owned(), value });
                }
            });
        }
        Ok(found)
    }

    /// The `label` key: every value (`name` or `name=value`) must match.
    pub fn labels(&self, key: &str, labels: Option<&super::Strings>) -> bool {
        self.get(key).all(|wanted| {
            let (name, value) = match wanted.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (wanted, None),
            };
            let found = labels.and_then(|labels| labels.get(name));
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        })
    }

    /// The parameter's text, as docker's command line sends it.
    pub fn to_json(&self) -> String {
        let map: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(key, values)| (key.as_str(), values.iter().map(|v| (v.as_str(), true)).collect()))
            .collect();
        serde_json::to_string(&map).expect("maps of text are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_one_is_written() {
        let filters = Filters::parse(r#"{"label":{"a=b":true,"c":false},"name":["x"]}"#).unwrap();
        assert_eq!(filters.get("label").collect::<Vec<_>>(), ["a=b"]);
        assert!(filters.exact("name", "x") && !filters.exact("name", "y") && filters.exact("id", "z"));
        assert_eq!(filters.to_json(), r#"{"label":{"a=b":true},"name":{"x":true}}"#);
        assert_eq!(filters.clone().only(&["label"]), Err(FilterError::UnknownKey("name".into())));
        assert_eq!(Filters::parse("[]"), Err(FilterError::Format));
        assert!(Filters::parse("").unwrap().is_empty());
    }

    #[test]
    fn every_label_must_match() {
        let filters = Filters::parse(r#"{"label":{"a":true,"b=1":true}}"#).unwrap();
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<super::super::Strings>()
        };
        assert!(filters.labels("label", Some(&labels(&[("a", ""), ("b", "1")]))));
        assert!(!filters.labels("label", Some(&labels(&[("a", ""), ("b", "2")]))));
        assert!(!filters.labels("label", None));
    }
}
