//! `docker images`: one row an image, whatever the number of its names.

use super::{Record, pull, records};
use crate::Ctx;
use crate::clock::Timestamp;
use crate::error::Error;
use proto::docker::filter::Filters;
use proto::docker::image::ImageSummary;
use proto::reference::Reference;
use std::collections::BTreeMap;

pub(crate) const FILTER_KEYS: &[&str] =
    &["dangling", "label", "label!", "before", "since", "reference", "until"];

pub(crate) async fn list(
    ctx: &Ctx,
    filters: &Filters,
    virtual_size: bool,
) -> Result<Vec<ImageSummary>, Error> {
    let mut rows: BTreeMap<String, (Vec<Record>, ImageSummary)> = BTreeMap::new();
    for record in records(ctx).await? {
        let id = record.image.id.to_string();
        let (all, row) = rows.entry(id.clone()).or_insert_with(|| (Vec::new(), summary(&record, id)));
        if let Some(reference) = &record.reference {
            if reference.tag().is_some() {
                row.repo_tags.get_or_insert_default().push(reference.familiar());
            }
            if record.labels.contains_key(pull::PULLED) {
                let digest = format!("{}@{}", reference.familiar_name(), record.image.target.digest);
                let digests = row.repo_digests.get_or_insert_default();
                if !digests.contains(&digest) {
                    digests.push(digest);
                }
            }
        }
        all.push(record);
    }
    let bound = |key: &str| -> Result<Option<i64>, Error> {
        let Some(name) = filters.get(key).next() else { return Ok(None) };
        let found = rows.values().find(|(all, _)| all.iter().any(|record| is_named(record, name)));
        found.map(|(_, row)| Some(row.created)).ok_or_else(|| {
            let name = Reference::parse_familiar(name)
                .map_or_else(|_| name.to_owned(), |name| name.with_default_tag().familiar());
            Error::not_found(format!("No such image: {name}"))
        })
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let dangling = filters.boolean("dangling")?;
    let until = match filters.get("until").next() {
        Some(text) => Some(
            Timestamp::parse_query(text)
                .ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'")))?,
        ),
        None => None,
    };
    let mut list = Vec::new();
    for (_, (all, mut row)) in rows {
        let labels = row.labels.as_ref();
        let kept = before.is_none_or(|before| row.created < before)
            && since.is_none_or(|since| row.created > since)
            && until.is_none_or(|until| row.created <= until.seconds())
            && dangling.is_none_or(|dangling| dangling == row.repo_tags.is_none())
            && filters.labels("label", labels)
            && (!filters.contains("label!") || !filters.labels("label!", labels));
        if !kept {
            continue;
        }
        if filters.contains("reference") {
            let shown: Vec<String> = all
                .iter()
                .filter_map(|record| record.reference.as_ref())
                .filter(|reference| filters.any("reference", |pattern| matches(pattern, reference)))
                .filter(|reference| reference.tag().is_some())
                .map(Reference::familiar)
                .collect();
            if shown.is_empty() {
                continue;
            }
            row.repo_tags = Some(shown);
        }
        for names in [&mut row.repo_tags, &mut row.repo_digests] {
            names.get_or_insert_default().sort();
        }
        row.virtual_size = virtual_size.then_some(row.size);
        list.push(row);
    }
    list.sort_by_key(|row| std::cmp::Reverse(row.created));
    Ok(list)
}

fn summary(record: &Record, id: String) -> ImageSummary {
    let image = &record.image;
    ImageSummary {
        containers: -1,
        created: image.created.parse::<Timestamp>().map_or(0, Timestamp::seconds),
        id,
        labels: image.config.labels.clone(),
        shared_size: -1,
        size: image.size,
        ..ImageSummary::default()
    }
}

fn is_named(record: &Record, name: &str) -> bool {
    let id = name.strip_prefix("sha256:").unwrap_or(name);
    let by_name = Reference::parse_familiar(name)
        .is_ok_and(|wanted| record.reference.as_ref() == Some(&wanted.with_default_tag()));
    by_name || (id.len() >= 4 && record.image.id.hex().starts_with(id))
}

/// docker's pattern: a name, or a name and tag, with `*` and `?` within a path component.
fn matches(pattern: &str, reference: &Reference) -> bool {
    [reference.familiar(), reference.familiar_name(), reference.to_string(), reference.name()]
        .iter()
        .any(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            glob(rest, text)
                || text.split_first().is_some_and(|(first, after)| *first != b'/' && glob(pattern, after))
        }
        ([b'?', rest @ ..], [first, after @ ..]) => *first != b'/' && glob(rest, after),
        ([want, rest @ ..], [first, after @ ..]) => want == first && glob(rest, after),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_docker_s() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let reference = Reference::parse_familiar(name).unwrap();
            assert_eq!(matches(pattern, &reference), expected, "{pattern} {name}");
        };
        check("busybox", "busybox:latest", true);
        check("busy*", "busybox:1", true);
        check("busybox:1*", "busybox:1.36", true);
        check("*", "me/app:1", false);
        check("*/app", "me/app:1", true);
        check("b?sybox:2", "busybox:1", false);
    }
}
