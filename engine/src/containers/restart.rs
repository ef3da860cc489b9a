//! Restart policies, their growing pauses, and `POST /containers/{id}/restart`.

use super::record::Record;
use super::state::Live;
use super::{publish, start, stop};
use crate::Shared;
use crate::error::Error;
use crate::view::Container;
use std::sync::Arc;
use std::time::Duration;

/// docker's pauses: from 100 ms doubling to one minute, anew after a run of ten seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const GOOD_RUN: Duration = Duration::from_secs(10);

/// After which pause the policy wants the container up again; none when it does not.
pub(crate) fn decide(record: &Record, exit_code: i64, ran_for: Duration, restarts: i64) -> Option<Duration> {
    if record.manually_stopped {
        return None;
    }
    let policy = &record.host_config.restart_policy;
    let wanted = match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            exit_code != 0 && (policy.maximum_retry_count == 0 || restarts < policy.maximum_retry_count)
        }
        _ => false,
    };
    let doublings = if ran_for >= GOOD_RUN { 0 } else { restarts.clamp(0, 10) as u32 };
    wanted.then(|| (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE))
}

/// True when the policy brings an ended container up with the engine.
pub(crate) fn at_engine_start(record: &Record) -> bool {
    let Some(last) = &record.last else { return false };
    if last.started_at.is_none() {
        return false;
    }
    let policy = &record.host_config.restart_policy;
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !record.manually_stopped,
        "on-failure" => {
            !record.manually_stopped
                && last.exit_code != 0
                && (policy.maximum_retry_count == 0 || record.restart_count < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// Starts the container after the pause, unless somebody stops, starts or removes it before.
pub(crate) fn schedule(ctx: Shared, container: Arc<Container>, pause: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        let _operation = container.operation.lock().await;
        if container.live() != Live::Restarting {
            return;
        }
        let record = (*container.record()).clone();
        if let Err(error) = start::start_held(&ctx, &container, record).await {
            tracing::warn!(%error, container = container.id, "restart failed");
        }
    });
}

/// Stop if it runs, then start; one event at the end.
pub(crate) async fn restart(
    ctx: &Shared,
    container: &Arc<Container>,
    signal: Option<u32>,
    timeout: Option<i64>,
) -> Result<(), Error> {
    match stop::stop(ctx, container, signal, timeout).await {
        Err(error) if error.kind() != crate::error::ErrorKind::NotModified => return Err(error),
        _ => {}
    }
    start::start(ctx, container).await?;
    publish(ctx, container, "restart", &[]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(policy: &str, retries: i64) -> Record {
        let mut record: Record = serde_json::from_value(serde_json::json!({
            "version": 1, "name": "x", "created": "2026-01-01T00:00:00Z", "image_id": "", "chain_id": "",
            "arguments": [], "config": {}, "host_config": {}
        }))
        .unwrap();
        record.host_config.restart_policy.name = policy.to_owned();
        record.host_config.restart_policy.maximum_retry_count = retries;
        record
    }

    #[test]
    fn policies_decide_and_pauses_grow() {
        let short = Duration::from_secs(1);
        let millis =
            |record: &Record, code, restarts| decide(record, code, short, restarts).map(|p| p.as_millis());
        assert_eq!(millis(&record("no", 0), 1, 0), None);
        assert_eq!(millis(&record("always", 0), 0, 0), Some(100));
        assert_eq!(millis(&record("always", 0), 0, 3), Some(800));
        assert_eq!(millis(&record("always", 0), 0, 99), Some(60_000));
        assert_eq!(millis(&record("on-failure", 2), 0, 0), None);
        assert_eq!(millis(&record("on-failure", 2), 1, 1), Some(200));
        assert_eq!(millis(&record("on-failure", 2), 1, 2), None);
        assert_eq!(decide(&record("always", 0), 0, GOOD_RUN, 9), Some(FIRST_PAUSE));
        let stopped = Record { manually_stopped: true, ..record("always", 0) };
        assert_eq!(millis(&stopped, 1, 0), None);
    }
}
