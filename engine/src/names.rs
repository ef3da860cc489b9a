//! Names for containers that were given none: an adjective and a person of computing, astronomy or mathematics.

use rand::seq::IndexedRandom;

const ADJECTIVES: &[&str] = &[
    "able", "agile", "amber", "ample", "apt", "azure", "bold", "brave", "bright", "brisk", "calm", "candid",
    "cheerful", "civil", "clear", "clever", "cosmic", "crisp", "curious", "daring", "deft", "eager",
    "earnest", "easy", "fair", "famous", "fearless", "fine", "firm", "fluent", "fond", "frank", "free",
    "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "jovial",
    "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat",
    "nimble", "noble", "patient", "placid", "polite", "proud", "prudent", "quick", "quiet", "rapid", "ready",
    "robust", "serene", "sharp", "silent", "sincere", "smart", "solid", "spry", "stable", "steady", "stoic",
    "sunny", "swift", "tidy", "tranquil", "trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty",
    "zesty",
];
const SURNAMES: &[&str] = &[
    "abel",
    "agnesi",
    "allen",
    "babbage",
    "backus",
    "bartik",
    "bell",
    "bernoulli",
    "bohr",
    "boole",
    "brahe",
    "cantor",
    "cauchy",
    "cerf",
    "church",
    "clarke",
    "codd",
    "curie",
    "dijkstra",
    "dirac",
    "easley",
    "engelbart",
    "erdos",
    "euler",
    "faraday",
    "fermat",
    "feynman",
    "floyd",
    "franklin",
    "galilei",
    "galois",
    "gauss",
    "germain",
    "goldberg",
    "hamilton",
    "hamming",
    "herschel",
    "hilbert",
    "hoare",
    "holberton",
    "hopper",
    "huygens",
    "jackson",
    "johnson",
    "kepler",
    "khwarizmi",
    "kilby",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "lamport",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "mirzakhani",
    "naur",
    "newton",
    "noether",
    "noyce",
    "pascal",
    "perlman",
    "planck",
    "poincare",
    "ramanujan",
    "riemann",
    "ritchie",
    "rubin",
    "shannon",
    "sinoussi",
    "stallman",
    "tarjan",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "vaughan",
    "wilkes",
    "wing",
    "wirth",
    "wozniak",
    "yalow",
    "zuse",
];

/// `keen_hopper`; with a digit at the end once a first try was taken.
pub(crate) fn generate(attempt: u32) -> String {
    let mut random = rand::rng();
    let adjective = ADJECTIVES.choose(&mut random).expect("not empty");
    let surname = SURNAMES.choose(&mut random).expect("not empty");
    if attempt == 0 {
        format!("{adjective}_{surname}")
    } else {
        format!("{adjective}_{surname}{}", rand::random_range(0..10))
    }
}

/// docker's rule for container names.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid() {
        for attempt in 0..20 {
            assert!(is_valid(&generate(attempt)));
        }
        for bad in ["", "a", "-a", "a b", "a/b", "ü1"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
