//! The files of one cgroup directory, and the three forms they have: a number, pairs, and lines of `key=value`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(dir: PathBuf) -> Files {
        Files { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// None where the kernel has no such file.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.join(name)).ok()
    }

    /// A number; `max` is the largest.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        number(self.text(name)?.trim())
    }

    /// `name value` on each line.
    pub(super) fn pairs(&self, name: &str) -> Option<Pairs> {
        self.text(name).map(|text| Pairs::parse(&text))
    }
}

pub(super) fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

#[derive(Debug, Default)]
pub(super) struct Pairs(BTreeMap<String, u64>);

impl Pairs {
    pub(super) fn parse(text: &str) -> Pairs {
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), number(value.trim())?))
        };
        Pairs(text.lines().filter_map(pair).collect())
    }

    /// 0 for what is not there, as the messages have it.
    pub(super) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }
}

/// `MAJOR:MINOR` at the beginning of a line, and the rest.
pub(super) fn device(line: &str) -> Option<(u64, u64, &str)> {
    let (numbers, rest) = line.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lines_are_skipped() {
        let pairs = Pairs::parse("anon 5\nbroken\nmax max\nodd x\nfile 7\n");
        assert_eq!((pairs.get("anon"), pairs.get("file"), pairs.get("odd")), (5, 7, 0));
        assert_eq!(pairs.get("max"), u64::MAX);
        assert_eq!(device("254:0 Read 12"), Some((254, 0, "Read 12")));
        assert_eq!(device("Total 12"), None);
    }
}
