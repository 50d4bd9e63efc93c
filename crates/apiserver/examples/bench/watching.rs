//! Fan-out: from just before an object is written until every watcher has its event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;

use crate::Failure;
use crate::client::{Access, Connection};
use crate::figures::Figures;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Every watcher has a connection of its own.
pub async fn fan_out(
    access: &Access,
    accept: &'static str,
    (watchers, hertz): (usize, f64),
    events: usize,
) -> Result<Figures, Failure> {
    let mut writer = Connection::open(access).await?;
    let name = format!("watched-by-{watchers}-{}", accept.len());
    let body = json!({"metadata": {"name": name}, "data": {"sent": ""}});
    writer.post(MAPS, body.to_string()).await?;
    let (results, mut seen) = mpsc::channel(1_024);
    let ready = Arc::new(Barrier::new(watchers + 1));
    let epoch = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let (watcher, name, results) = ((access.clone(), accept), name.clone(), results.clone());
        tasks.spawn(watch(watcher, name, Arc::clone(&ready), epoch, results));
    }
    drop(results);
    ready.wait().await;
    let mut figures = Figures::begin();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / hertz));
    let counting = tokio::spawn(async move {
        let mut taken = Vec::with_capacity(watchers * events);
        while taken.len() < watchers * events
            && let Some(one) = seen.recv().await
        {
            taken.push(one);
        }
        taken
    });
    for _ in 0..events {
        ticks.tick().await;
        let sent = epoch.elapsed().as_micros().to_string();
        let body = json!({"metadata": {"name": name}, "data": {"sent": sent}});
        writer.send(Method::PUT, &format!("{MAPS}/{name}"), body.to_string()).await?.into_body().collect().await?;
    }
    counting.await?.into_iter().for_each(|taken| figures.add(taken));
    tasks.shutdown().await;
    Ok(figures.end())
}

async fn watch(
    (access, accept): (Access, &'static str),
    name: String,
    ready: Arc<Barrier>,
    epoch: Instant,
    results: mpsc::Sender<Duration>,
) -> Result<(), Failure> {
    let mut connection = Connection::open(&access).await?.accepting(accept);
    let path = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut body = connection.send(Method::GET, &path, String::new()).await?.into_body();
    // The state at the beginning.
    body.frame().await;
    ready.wait().await;
    let mut unread = Vec::new();
    while let Some(frame) = body.frame().await {
        let now = epoch.elapsed();
        unread.extend_from_slice(frame?.data_ref().map_or(&[], |bytes| bytes));
        // A watcher that is behind gets several events in one piece, or an event in two.
        while let Some((sent, end)) = sent_at(&unread) {
            unread.drain(..end);
            if results.send(now.saturating_sub(sent)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The time in the first event, and where that ends; read without parsing, so that the client does not become what is measured.
fn sent_at(events: &[u8]) -> Option<(Duration, usize)> {
    const IN_JSON: &[u8] = br#""sent":""#;
    // Key of a map's entry, key of its value; one byte of length follows.
    const IN_PROTOBUF: &[u8] = b"sent\x12";
    let after = |mark: &[u8], more: usize| {
        Some(events.windows(mark.len()).position(|window| window == mark)? + mark.len() + more)
    };
    let start = after(IN_JSON, 0).or_else(|| after(IN_PROTOBUF, 1))?;
    let length = events.get(start..)?.iter().position(|byte| !byte.is_ascii_digit())?;
    let digits = std::str::from_utf8(&events[start..start + length]).ok()?;
    Some((Duration::from_micros(digits.parse().ok()?), start + length))
}
