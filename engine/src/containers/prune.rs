//! `POST /containers/prune`.

use super::remove;
use super::state::Live;
use crate::Ctx;
use crate::clock::Timestamp;
use crate::error::Error;
use proto::docker::container::PruneReport;
use proto::docker::filter::Filters;
use std::time::Duration;

pub(crate) const FILTER_KEYS: &[&str] = &["label", "label!", "until"];

pub(crate) async fn prune(ctx: &Ctx, filters: &Filters) -> Result<PruneReport, Error> {
    let until = filters.get("until").map(parse_until).collect::<Result<Vec<_>, _>>()?;
    if until.len() > 1 {
        return Err(Error::invalid("more than one until filter specified"));
    }
    let mut report = PruneReport::default();
    for container in ctx.view.all() {
        let (record, live) = container.look();
        let labels = record.config.labels.as_ref();
        let excluded = filters.contains("label!") && filters.labels("label!", labels);
        let fits = live == Live::Down
            && filters.labels("label", labels)
            && !excluded
            && until.first().is_none_or(|until| record.created < *until);
        if !fits {
            continue;
        }
        let size = ctx.containerd.snapshot_usage(&container.id).await.unwrap_or(0);
        if remove::remove(ctx, &container, &container.id, false, false).await.is_ok() {
            report.space_reclaimed += size.max(0) as u64;
            report.containers_deleted.get_or_insert_default().push(container.id.clone());
        }
    }
    let reclaimed = [("reclaimed".to_owned(), report.space_reclaimed.to_string())];
    ctx.events.publish("container", "prune", "", reclaimed.into());
    Ok(report)
}

/// A time, or a duration back from now as `24h`.
fn parse_until(text: &str) -> Result<Timestamp, Error> {
    if let Some(time) = Timestamp::parse_query(text) {
        return Ok(time);
    }
    let seconds = parse_duration(text)
        .ok_or_else(|| Error::invalid(format!("failed to parse value as time or duration: {text:?}")))?;
    Ok(Timestamp::from_nanos(Timestamp::now().nanos() - seconds.as_nanos() as i64))
}

/// Go's durations in whole units: `1h30m`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => Duration::from_millis(1),
                "s" => Duration::from_secs(1),
                "m" => Duration::from_secs(60),
                "h" => Duration::from_secs(3600),
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("10s"), Some(Duration::from_secs(10)));
        for bad in ["", "h", "1", "1x"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
