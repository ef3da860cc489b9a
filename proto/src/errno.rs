//! What the kernel said, in the words of Go's programs: clients look for them, and take exit codes from them.

/// `No space left on device (os error 28)`, alone or at the end of a sentence, as `no space left on device`.
pub fn in_gos_words(text: &str) -> String {
    let Some((before, after)) = text.split_once(" (os error ") else { return text.to_owned() };
    let Some((_, rest)) = after.split_once(')') else { return text.to_owned() };
    let start = before.rfind(": ").map_or(0, |at| at + 2).max(before.rfind('(').map_or(0, |at| at + 1));
    let (steps, reason) = before.split_at(start);
    let mut letters = reason.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    let first = first.map(String::from).unwrap_or_default();
    format!("{steps}{first}{}{}", letters.as_str(), in_gos_words(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_lower_case_and_without_its_number() {
        for (text, want) in [
            ("No such file or directory (os error 2)", "no such file or directory"),
            ("open /A/B: Is a directory (os error 21)", "open /A/B: is a directory"),
            ("write X: Input/output error (os error 5): unknown", "write X: input/output error: unknown"),
            ("Is it up? (Broken pipe (os error 32))", "Is it up? (broken pipe)"),
            ("As it is", "As it is"),
        ] {
            assert_eq!(in_gos_words(text), want);
        }
    }
}
