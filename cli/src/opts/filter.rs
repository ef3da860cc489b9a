//! `--filter KEY=VALUE` as the API's JSON map of maps.

use std::collections::BTreeMap;

/// The `filters` parameter; none without filters.
pub(crate) fn parse(given: &[String]) -> Result<Option<String>, String> {
    let mut map: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for text in given {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("invalid argument {text:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"))?;
        map.entry(key.trim().to_ascii_lowercase()).or_default().insert(value.trim().to_owned(), true);
    }
    if map.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::to_string(&map).map_err(|e| e.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_a_map_of_maps() {
        let given = ["label=a=b".to_owned(), "Label=c".to_owned(), "status=exited".to_owned()];
        let expected = r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#;
        assert_eq!(parse(&given).unwrap().unwrap(), expected);
        assert_eq!(parse(&[]).unwrap(), None);
        assert!(parse(&["status".to_owned()]).is_err());
    }
}
