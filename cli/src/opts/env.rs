//! Environment variables and labels: from the command line, and from files of lines.

use std::collections::BTreeMap;
use std::path::Path;

/// `NAME=VALUE` as it is; `NAME` with this process's value, dropped where it has none.
pub(crate) fn variables(files: &[String], given: &[String]) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            add(&mut all, &line)?;
        }
    }
    for variable in given {
        add(&mut all, variable)
            .map_err(|reason| format!("invalid argument {variable:?} for \"-e, --env\" flag: {reason}"))?;
    }
    Ok(all)
}

fn add(all: &mut Vec<String>, variable: &str) -> Result<(), String> {
    match variable.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {variable}")),
        Some(_) => {
            all.push(variable.to_owned());
            Ok(())
        }
        None if variable.is_empty() || variable.contains(char::is_whitespace) => {
            Err(format!("invalid environment variable: {variable}"))
        }
        None => {
            if let Ok(value) = std::env::var(variable) {
                all.push(format!("{variable}={value}"));
            }
            Ok(())
        }
    }
}

/// Labels: `KEY=VALUE`, or `KEY` for an empty value.
pub(crate) fn labels(files: &[String], given: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    let mut add = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        all.insert(key.to_owned(), value.to_owned());
    };
    for file in files {
        lines(file)?.iter().for_each(|line| add(line));
    }
    given.iter().for_each(|label| add(label));
    Ok(all)
}

/// `KEY=VALUE` pairs, both needed.
pub(crate) fn pairs(flag: &str, given: &[String]) -> Result<BTreeMap<String, String>, String> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!(
                "invalid argument {text:?} for \"--{flag}\" flag: must be formatted as key=value"
            )),
        })
        .collect()
}

fn lines(file: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(Path::new(file))
        .map_err(|e| format!("open {file}: {}", proto::errno::in_gos_words(&e.to_string())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_takes_the_value_of_this_process() {
        let given = ["A=1".to_owned(), "PATH".to_owned(), "NOT_SET_ANYWHERE".to_owned(), "B=".to_owned()];
        let all = variables(&[], &given).unwrap();
        assert_eq!(all[0], "A=1");
        assert!(all[1].starts_with("PATH=/"));
        assert_eq!(all[2], "B=");
        assert!(variables(&[], &["=x".to_owned()]).is_err());
        assert!(variables(&["/nonexistent".to_owned()], &[]).is_err());
    }
}
