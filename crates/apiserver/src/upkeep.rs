//! What the server does by itself as time passes: old history is compacted, old events and signing
//! requests are removed. Ends with the
//! server.

use std::sync::{Arc, Weak};
use std::time::Duration;

use isopod_store::{Entry, Expect, ListQuery, Write};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::commit;
use crate::server::ApiServer;
use crate::strategy::{meta, text};
use crate::{codec, signing};

const PERIOD: Duration = Duration::from_secs(60);
/// History is kept for at least this many periods: continue tokens and watches can go back so far.
const HISTORY_PERIODS: usize = 5;
const EVENT_SECONDS: i64 = 3_600;

/// Starts the task.
pub(crate) fn start(server: &Arc<ApiServer>) {
    tokio::spawn(run(Arc::downgrade(server)));
}

async fn run(server: Weak<ApiServer>) {
    let mut revisions = std::collections::VecDeque::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(server) = server.upgrade() else { return };
        revisions.push_back(server.store.revision());
        if revisions.len() > HISTORY_PERIODS
            && let Some(revision) = revisions.pop_front()
            && let Err(error) = server.store.compact(revision).await
        {
            tracing::error!(%error, "the store could not be compacted");
        }
        expire_events(&server).await;
        signing::expire(&server).await;
    }
}

async fn expire_events(server: &ApiServer) {
    let Ok(list) = server.store.list(&ListQuery { prefix: "events/".into(), ..ListQuery::default() }) else { return };
    let now = server.config.clock.now();
    for entry in list.entries.iter().filter(|entry| is_old(entry, now)) {
        let write = Write::delete(entry.key.clone(), Expect::Revision(entry.mod_revision), None);
        // One that was written meanwhile is not old any more.
        if let Err(error) = commit(server, write).await {
            tracing::error!(%error, "an old event could not be removed");
        }
    }
}

fn is_old(entry: &Entry, now: Timestamp) -> bool {
    codec::decode(&entry.value)
        .is_ok_and(|event| last_seen(&event).is_some_and(|seen| now.as_second() - seen.as_second() > EVENT_SECONDS))
}

fn last_seen(event: &Value) -> Option<Timestamp> {
    let times = [
        meta(event, "creationTimestamp"),
        text(event, &["lastTimestamp"]),
        text(event, &["eventTime"]),
        text(event, &["series", "lastObservedTime"]),
    ];
    times.into_iter().filter_map(|time| time.parse().ok()).max()
}
