//! Custom objects whose versions differ in more than their name: a webhook of the definition converts what is stored into
//! what is served, and what is written into what is stored (facts, section 5). In between, everything sees an object in
//! the version of the request only. What was converted for readers is kept with the stored object, within bounds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use isopod_schema::crd::{self, Conversion};
use isopod_schema::{Kind, Status};
use isopod_store::{Entry, Event};
use serde_json::Value;

use crate::admission::call::Client;
use crate::admission::{Stored, places};
use crate::server::ApiServer;
use crate::{codec, convert};

/// Longest time for one call.
const CALL: Duration = Duration::from_secs(30);
/// Objects in one call: what takes longer to send than to convert is sent in parts.
const BATCH: usize = 500;

/// Ways to webhooks, by their certificates.
#[derive(Default)]
pub(crate) struct Clients(Mutex<BTreeMap<Vec<u8>, Arc<Client>>>);

/// Ways that are kept; a definition that changes its certificates leaves one behind.
const CLIENTS: usize = 64;

impl Clients {
    fn of(&self, conversion: &Conversion) -> Arc<Client> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CLIENTS && !known.contains_key(&conversion.ca_bundle) {
            known.clear();
        }
        let made = || Arc::new(Client::new(&conversion.ca_bundle));
        Arc::clone(known.entry(conversion.ca_bundle.clone()).or_insert_with(made))
    }
}

/// The webhook that stands between what is stored and what this kind shows.
pub(crate) fn webhook(kind: &Kind) -> Option<&Conversion> {
    kind.custom.as_ref().and_then(|custom| custom.conversion.as_ref())
}

/// The entries as this kind shows them: objects of its version. Others than those of custom kinds with a webhook are shown
/// as they are.
///
/// # Errors
/// 500 when the webhook fails.
pub(crate) async fn shown(
    server: &Arc<ApiServer>,
    kind: &Arc<Kind>,
    entries: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, Status> {
    let Some(conversion) = webhook(kind) else { return Ok(entries) };
    let mut shown = entries;
    let mut missing = Vec::new();
    for (at, entry) in shown.iter_mut().enumerate() {
        if let Some(known) = known(kind, entry) {
            *entry = known;
            continue;
        }
        let object = codec::decode(&entry.value)?;
        if object["apiVersion"] != kind.api_version() {
            missing.push((at, object));
        }
    }
    for batch in missing.chunks(BATCH) {
        // One version at a time is asked for; what it is in now may differ.
        let objects: Vec<Value> = batch.iter().map(|(_, object)| object.clone()).collect();
        let converted = convert(server, kind, conversion, &kind.api_version(), objects).await?;
        for ((at, _), object) in batch.iter().zip(converted) {
            let object = convert::from_stored(kind, object);
            let entry = Arc::new(shown[*at].shown_as(codec::encode(&object)));
            keep(server, kind, &shown[*at], &entry);
            shown[*at] = entry;
        }
    }
    Ok(shown)
}

/// The same of one entry.
///
/// # Errors
/// As [`shown`].
pub(crate) async fn shown_one(
    server: &Arc<ApiServer>,
    kind: &Arc<Kind>,
    entry: Arc<Entry>,
) -> Result<Arc<Entry>, Status> {
    if webhook(kind).is_none() {
        return Ok(entry);
    }
    Ok(shown(server, kind, vec![Arc::clone(&entry)]).await?.pop().unwrap_or(entry))
}

/// The same of an event.
///
/// # Errors
/// As [`shown`].
pub(crate) async fn shown_event(
    server: &Arc<ApiServer>,
    kind: &Arc<Kind>,
    event: Arc<Event>,
) -> Result<Arc<Event>, Status> {
    if webhook(kind).is_none() {
        return Ok(event);
    }
    let entry = shown_one(server, kind, Arc::clone(&event.entry)).await?;
    let previous = match &event.previous {
        Some(previous) => Some(shown_one(server, kind, Arc::clone(previous)).await?),
        None => None,
    };
    Ok(Arc::new(Event { kind: event.kind, entry, previous }))
}

/// An object in the version in which it is stored.
///
/// # Errors
/// 500 when the webhook fails.
pub(crate) async fn for_storage<'a>(
    server: &Arc<ApiServer>,
    kind: &Arc<Kind>,
    object: &'a Value,
) -> Result<Cow<'a, Value>, Status> {
    let Some((conversion, custom)) = webhook(kind).zip(kind.custom.as_ref()) else { return Ok(Cow::Borrowed(object)) };
    let wanted = format!("{}/{}", kind.group, custom.storage_version);
    if object["apiVersion"] == wanted.as_str() {
        return Ok(Cow::Borrowed(object));
    }
    let mut converted = convert(server, kind, conversion, &wanted, vec![object.clone()]).await?;
    converted.pop().map(Cow::Owned).ok_or_else(|| Status::internal("a conversion came to nothing"))
}

/// What was written, as the kind of the request shows it.
pub(crate) fn written(kind: &Kind, entry: &Entry, object: &Value) -> Bytes {
    match webhook(kind) {
        None => entry.value.clone(),
        Some(_) => entry.shown_as(codec::encode(object)).value,
    }
}

/// Objects are stored in another version than new ones are.
pub(crate) fn is_outdated(kind: &Kind, stored: &Entry) -> bool {
    webhook(kind).zip(kind.custom.as_ref()).is_some_and(|(_, custom)| {
        let wanted = format!("{}/{}", kind.group, custom.storage_version);
        codec::decode(&stored.value).is_ok_and(|object| object["apiVersion"] != wanted.as_str())
    })
}

async fn convert(
    server: &Arc<ApiServer>,
    kind: &Kind,
    conversion: &Conversion,
    api_version: &str,
    objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let uid = uuid::Uuid::new_v4().to_string();
    let body = crd::review(&uid, api_version, &objects).to_string();
    let call = async {
        let place = places::find(&Stored(&server.store), &conversion.target)?;
        let answer = server.converters.of(conversion).post(&place, body.into(), CALL).await?;
        crd::read_answer(&answer, &uid, api_version, &objects)
    };
    let from = objects.first().map_or("", |object| object["apiVersion"].as_str().unwrap_or_default());
    let failed = |why| Status::internal(format!("conversion webhook for {from}, Kind={} failed: {why}", kind.kind));
    call.await.map_err(failed)
}

/// What was converted before. The kind must be the very same: another definition may convert otherwise.
fn known(kind: &Arc<Kind>, entry: &Entry) -> Option<Arc<Entry>> {
    let derived = codec::derived(entry);
    let slot = derived.shown.lock().unwrap_or_else(PoisonError::into_inner);
    slot.as_ref().filter(|(of, _)| Arc::ptr_eq(of, kind)).map(|(_, entry)| Arc::clone(entry))
}

fn keep(server: &ApiServer, kind: &Arc<Kind>, entry: &Entry, shown: &Arc<Entry>) {
    let derived = codec::derived(entry);
    *derived.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(kind), Arc::clone(shown)));
    let forget = |derived: &codec::Derived| {
        derived.shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    };
    server.encoded.keep(&derived, forget, shown.value.len());
}
