//! `--restart no|always|unless-stopped|on-failure[:N]`.

use proto::docker::container::RestartPolicy;

pub(crate) fn parse(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
    let maximum_retry_count = match count {
        None => 0,
        Some(count) => count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
    };
    if name.is_empty() && count.is_some() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    // Names are the engine's to judge: it may know more of them.
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = parse("on-failure:3").unwrap();
        assert_eq!((policy.name.as_str(), policy.maximum_retry_count), ("on-failure", 3));
        assert_eq!(parse("always").unwrap().name, "always");
        assert!(parse("on-failure:x").is_err() && parse(":3").is_err());
    }
}
