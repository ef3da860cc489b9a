//! The small grammars that everybody types: what one reads it can write, and reads again as the same.
#![no_main]

use proto::digest::Digest;
use proto::docker::filter::Filters;
use proto::platform::Platform;
use proto::reference::Reference;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse_familiar(text) {
        let again =
            Reference::parse_familiar(&reference.familiar()).expect("the familiar form is a reference");
        assert_eq!(reference.to_string(), again.to_string());
        let whole = Reference::parse_familiar(&reference.to_string()).expect("the whole form is a reference");
        assert_eq!(reference.to_string(), whole.to_string());
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
    }
    let _ = Platform::parse(text);
    if let Ok(filters) = Filters::parse(text) {
        let again = Filters::parse(&filters.to_json()).expect("filters as written");
        assert_eq!(filters.to_json(), again.to_json());
    }
});
