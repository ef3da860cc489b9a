//! Lists of processors and memory nodes as the kernel writes them.

/// `0-3,7` as one bit for each number; nothing for a list that is none.
pub(crate) fn bits(text: &str) -> Option<Vec<u64>> {
    /// More than any machine has of processors or memory nodes.
    const MOST: usize = 8192;
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&n| n < MOST);
    let mut mask = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0);
        }
        (first..=last).for_each(|n| mask[n / 64] |= 1 << (n % 64));
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_bits() {
        for (text, mask) in [
            ("0", Some(vec![1])),
            ("0-3,7", Some(vec![0x8f])),
            ("64", Some(vec![0, 1])),
            ("", Some(vec![])),
            ("3-1", None),
            ("x", None),
            ("-1", None),
            ("9999999", None),
        ] {
            assert_eq!(bits(text), mask, "{text:?}");
        }
    }
}
