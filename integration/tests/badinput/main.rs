//! Wrong requests and command lines: each gets the status, the code and the sentence of docker, containerd or runc, and
//! changes nothing. The sentences were observed from the originals, and with `SUBJECT=reference` the same tables run
//! against them (`dockerd` 28, `containerd` 2 and `runc` from PATH); rows marked `ours` say what we refuse and they do not.

mod containerd;
mod docker;
mod engine;
mod full;
mod runtime;
mod twice;

use std::collections::BTreeSet;

/// Whether a text is what a pattern says; `*` stands for anything: ids, paths, the name of a program.
fn says(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

/// What a refusal has left behind or taken away.
fn difference(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("- {line}"));
    let come = after.difference(before).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

#[test]
fn patterns() {
    for (text, pattern) in [("a", "a"), ("abc", "a*c"), ("a", "*"), ("xabcy", "*b*"), ("a b c", "a*b*c")] {
        assert!(says(text, pattern), "{text} {pattern}");
    }
    for (text, pattern) in [("a", "b"), ("abcd", "a*c"), ("ab", "a"), ("abc", "a*x*c"), ("", "*a*")] {
        assert!(!says(text, pattern), "{text} {pattern}");
    }
}
