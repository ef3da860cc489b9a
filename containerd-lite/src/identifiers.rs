//! The two small rules every record obeys: what a name may look like and how long a label may be.

use crate::error::{Error, Result};
use std::collections::HashMap;

/// The rule as containerd prints it in its refusals.
const PATTERN: &str = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$";
/// Longest identifier, in bytes; it becomes a file name and part of a socket path.
const MAX_LEN: usize = 76;
/// Longest key and value of a label together, in bytes.
const MAX_LABEL_LEN: usize = 4096;

/// Names of namespaces, containers, leases, execs: letters and digits, joined by single `.`, `_` or `-`.
pub(crate) fn validate(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::invalid("identifier must not be empty"));
    }
    if id.len() > MAX_LEN {
        return Err(Error::invalid(format_args!(
            "identifier {id:?} greater than maximum length ({MAX_LEN} characters)"
        )));
    }
    if !id
        .split(['.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
    {
        return Err(Error::invalid(format_args!("identifier {id:?} must match {PATTERN}")));
    }
    Ok(())
}

/// A topic: `/` and components that are identifiers.
pub(crate) fn validate_topic(topic: &str) -> Result<()> {
    if topic.is_empty() {
        return Err(Error::invalid("must not be empty"));
    }
    let Some(rest) = topic.strip_prefix('/') else {
        return Err(Error::invalid(format_args!("topic {topic:?} must start with '/'")));
    };
    if rest.is_empty() {
        return Err(Error::invalid(format_args!("topic {topic:?} must have at least one component")));
    }
    for component in rest.split('/') {
        validate(component)
            .map_err(|error| error.context(format_args!("topic {topic:?} component {component:?}")))?;
    }
    Ok(())
}

/// Checks every label and drops those with an empty value, which means "unset" everywhere in this API.
pub(crate) fn check_labels(labels: &mut HashMap<String, String>) -> Result<()> {
    for (key, value) in labels.iter() {
        let length = key.len() + value.len();
        if length > MAX_LABEL_LEN {
            let head: String = key.chars().take(64).collect();
            return Err(Error::invalid(format_args!(
                "label key and value length ({length} bytes) greater than maximum size ({MAX_LABEL_LEN} bytes), key: {head}"
            )));
        }
    }
    labels.retain(|_, value| !value.is_empty());
    Ok(())
}

/// Applies the `labels` and `labels.X` paths of an update mask; false when `path` is neither.
pub(crate) fn update_labels(
    path: &str,
    labels: &mut HashMap<String, String>,
    wanted: &HashMap<String, String>,
) -> bool {
    if path == "labels" {
        labels.clone_from(wanted);
        return true;
    }
    let Some(key) = path.strip_prefix("labels.") else { return false };
    labels.insert(key.to_owned(), wanted.get(key).cloned().unwrap_or_default());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for good in ["a", "A1", "a.b", "a_b-c.d", "0", &"x".repeat(76)] {
            assert!(validate(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", "-a", "a-", "a/b", "../a", "a b", "a\0", "é", "a.-b", &"x".repeat(77)]
        {
            assert!(validate(bad).is_err(), "{bad}");
        }
        assert_eq!(
            validate("a/b").unwrap_err().to_string(),
            format!("identifier \"a/b\" must match {PATTERN}: invalid argument")
        );
    }

    #[test]
    fn topics() {
        for good in ["/tasks/create", "/a", "/containers/update"] {
            assert!(validate_topic(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "tasks", "/a//b", "/a/", "/a/../b"] {
            assert!(validate_topic(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels() {
        let mut labels = HashMap::from([("a".to_owned(), String::new()), ("b".to_owned(), "1".to_owned())]);
        check_labels(&mut labels).unwrap();
        assert_eq!(labels.len(), 1);
        labels.insert("k".repeat(96), "v".repeat(4000));
        assert!(check_labels(&mut labels).is_ok());
        labels.insert("k".repeat(97), "v".repeat(4000));
        assert!(check_labels(&mut labels).is_err());
    }

    #[test]
    fn masks_replace_all_labels_or_set_one() {
        let stored = HashMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let wanted = HashMap::from([("a".to_owned(), "9".to_owned()), ("c".to_owned(), "3".to_owned())]);
        for (path, expected) in [
            ("labels", Some(vec![("a", "9"), ("c", "3")])),
            ("labels.a", Some(vec![("a", "9"), ("b", "2")])),
            ("labels.b", Some(vec![("a", "1")])),
            ("target", None),
        ] {
            let mut labels = stored.clone();
            let taken = update_labels(path, &mut labels, &wanted);
            assert_eq!(taken, expected.is_some(), "{path}");
            check_labels(&mut labels).unwrap();
            if let Some(expected) = expected {
                let mut got: Vec<_> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                got.sort();
                assert_eq!(got, expected, "{path}");
            }
        }
    }
}
