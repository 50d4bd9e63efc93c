//! IPAddress objects and the state of ServiceCIDRs, kept in step with the Services: an IPAddress for every address of
//! every Service, none for an address that no Service has any longer; ranges that are ready, and ranges that go when
//! their last address has gone. Never chooses an address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use isopod_schema::Status;
use isopod_store::{Entry, Event, EventKind, Expect, ListQuery, Outcome, Scope, Write};
use serde_json::{Value, json};

use super::claims::{Claims, service_key};
use super::ranges;
use crate::codec;
use crate::context::{Context, commit};
use crate::follow::{self, Follower};
use crate::ownership::{self, Claim};
use crate::server::ApiServer;
use crate::strategy::{self, meta, text};

/// Where IPAddresses are.
pub(super) const ADDRESSES: &str = "ipaddresses.networking.k8s.io/";
/// Where ServiceCIDRs are.
pub(super) const RANGES: &str = "servicecidrs.networking.k8s.io/";
const SERVICES: &str = "services/";
/// How long a write waits until what follows from it is there.
const IN_STEP: Duration = Duration::from_secs(2);

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// The revisions up to which Services and ranges have been followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(super) services: u64,
    pub(super) ranges: u64,
}

/// The range that every cluster begins with.
pub(crate) fn default_range(server: &ApiServer) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [server.config.service_cidr.to_string()]},
    })
}

/// The key of the Service that an IPAddress belongs to; empty for another kind of parent.
pub(super) fn parent_key(address: &Value) -> String {
    let parent = |field: &str| text(address, &["spec", "parentRef", field]);
    match (parent("group"), parent("resource")) {
        ("", "services") => format!("{SERVICES}{}/{}", parent("namespace"), parent("name")),
        _ => String::new(),
    }
}

/// Waits until what follows from a write of this entry is there. Other kinds need not wait.
pub(crate) async fn in_step(server: &ApiServer, entry: &Entry) {
    let (services, ranges) = (entry.key.starts_with(SERVICES), entry.key.starts_with(RANGES));
    if !services && !ranges {
        return;
    }
    let reached = |step: &Step| entry.mod_revision <= if services { step.services } else { step.ranges };
    let mut steps = server.addresses.step.subscribe();
    if tokio::time::timeout(IN_STEP, steps.wait_for(reached)).await.is_err() {
        tracing::warn!(key = %entry.key, "the addresses of Services are not in step yet");
    }
}

/// Brings IPAddresses and ranges into step with the Services, and keeps them there.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    follow::start(server, Keeper).await
}

struct Keeper;

impl Follower for Keeper {
    const WHAT: &'static str = "addresses of Services";

    fn scopes(&self) -> Vec<Scope> {
        [SERVICES, ADDRESSES, RANGES].map(|prefix| Scope::Prefix(prefix.into())).to_vec()
    }

    async fn settle(&mut self, server: &Arc<ApiServer>, events: Option<&[Arc<Event>]>) -> Result<(), Status> {
        let step = match events {
            None => all(server).await?,
            Some(events) => changed(server, events).await?,
        };
        server.addresses.step.send_modify(|known| {
            // What was waited for before anything was followed is no measure.
            let later = |known: u64, now: u64| if known == u64::MAX { now } else { known.max(now) };
            *known = Step { services: later(known.services, step.services), ranges: later(known.ranges, step.ranges) };
        });
        Ok(())
    }
}

fn entries(server: &ApiServer, prefix: &str) -> Result<Vec<Arc<Entry>>, Status> {
    let query = ListQuery { prefix: prefix.into(), ..ListQuery::default() };
    server.store.list(&query).map(|list| list.entries).map_err(Status::internal)
}

async fn all(server: &Arc<ApiServer>) -> Result<Step, Status> {
    let revision = server.store.revision();
    for service in entries(server, SERVICES)? {
        for address in &Claims::of_entry(&service).addresses {
            settle_address(server, *address, &service.key).await?;
        }
    }
    for entry in entries(server, ADDRESSES)? {
        if let Some(address) = address_of(&entry) {
            settle_address(server, address, "").await?;
        }
    }
    settle_ranges(server).await?;
    Ok(Step { services: revision, ranges: revision })
}

async fn changed(server: &Arc<ApiServer>, events: &[Arc<Event>]) -> Result<Step, Status> {
    let (mut step, mut ranges_matter) = (Step::default(), false);
    for event in events {
        let entry = &event.entry;
        if entry.key.starts_with(SERVICES) {
            step.services = step.services.max(event.revision());
            let mut addresses = event.previous.as_deref().map(|old| Claims::of_entry(old).addresses.clone());
            addresses.get_or_insert_default().extend(&Claims::of_entry(entry).addresses);
            for address in addresses.unwrap_or_default() {
                settle_address(server, address, &entry.key).await?;
            }
        } else if entry.key.starts_with(RANGES) {
            step.ranges = step.ranges.max(event.revision());
            ranges_matter = true;
        } else if let Some(address) = address_of(entry) {
            let before = event.previous.as_deref().and_then(codec::object).map(|object| parent_key(&object));
            settle_address(server, address, &before.unwrap_or_default()).await?;
            ranges_matter |= event.kind == EventKind::Delete;
        }
    }
    if ranges_matter {
        settle_ranges(server).await?;
    }
    Ok(step)
}

fn address_of(entry: &Entry) -> Option<IpAddr> {
    entry.key.strip_prefix(ADDRESSES)?.parse().ok()
}

/// The Service, if it has the address now.
fn holder(server: &ApiServer, key: &str, address: IpAddr) -> Option<Arc<Entry>> {
    let entry = if key.is_empty() { None } else { server.store.get(key) };
    entry.filter(|entry| Claims::of_entry(entry).addresses.contains(&address))
}

/// Makes the IPAddress of an address what the Services say. `claimant` is the key of a Service that may have it.
async fn settle_address(server: &Arc<ApiServer>, address: IpAddr, claimant: &str) -> Result<(), Status> {
    let key = format!("{ADDRESSES}{address}");
    let existing = server.store.get(&key);
    let object = existing.as_deref().and_then(codec::object);
    let parent = object.as_deref().map(parent_key).unwrap_or_default();
    if holder(server, &parent, address).is_some() {
        return Ok(());
    }
    let managed = object.as_deref().is_some_and(|object| object["metadata"]["labels"][MANAGED_BY] == ALLOCATOR);
    let write = match (holder(server, claimant, address), existing) {
        (None, Some(entry)) if managed => Write::delete(key, Expect::Revision(entry.mod_revision), None),
        (None, _) => return Ok(()),
        (Some(service), None) => {
            Write::put(key, Expect::Absent, codec::encode(&of_service(server, &service, address)?))
        }
        (Some(service), Some(entry)) => {
            let wanted = of_service(server, &service, address)?;
            Write::put(key, Expect::Revision(entry.mod_revision), codec::encode(&wanted))
        }
    };
    // Whoever was faster is told of as another event.
    commit(server, write).await.map(|_| ())
}

/// The IPAddress of a Service's address.
fn of_service(server: &Arc<ApiServer>, service: &Entry, address: IpAddr) -> Result<Value, Status> {
    let service = codec::decode(&service.value)?;
    tracing::debug!(service = service_key(&service), %address, "an address gets its object");
    let parent =
        json!({"resource": "services", "namespace": meta(&service, "namespace"), "name": meta(&service, "name")});
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": {"ipaddress.kubernetes.io/ip-family": family, MANAGED_BY: ALLOCATOR},
        },
        "spec": {"parentRef": parent},
    });
    let context = Context::internal(server, &object)?;
    let owners = ownership::of_new(&context, &object, &Claim::ByChange(Value::Null))?;
    strategy::prepare_create(context.stored, &mut object, context.now, &uuid::Uuid::new_v4().to_string());
    ownership::set(&mut object, owners);
    Ok(object)
}

// === ranges ===

async fn settle_ranges(server: &Arc<ApiServer>) -> Result<(), Status> {
    for entry in entries(server, RANGES)? {
        let current = codec::decode(&entry.value)?;
        let wanted = decide(server, &current)?;
        if wanted == current {
            continue;
        }
        let expect = Expect::Revision(entry.mod_revision);
        let finished = strategy::is_deleting(&wanted) && wanted["metadata"]["finalizers"].is_null();
        let write = match finished {
            true => Write::delete(entry.key.clone(), expect, Some(codec::encode(&wanted))),
            false => Write::put(entry.key.clone(), expect, codec::encode(&wanted)),
        };
        if let Outcome::Lost(_) = commit(server, write).await? {
            tracing::debug!(key = %entry.key, "a range was written meanwhile; it comes back as an event");
        }
    }
    Ok(())
}

/// A ServiceCIDR as it should be.
fn decide(server: &ApiServer, current: &Value) -> Result<Value, Status> {
    let mut wanted = current.clone();
    let list = current["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let mut finalizers: Vec<Value> = list.into_iter().filter(|name| name != FINALIZER).collect();
    if !strategy::is_deleting(current) {
        set_ready(server, &mut wanted, "True", "", "Kubernetes Service CIDR is ready");
        finalizers.push(FINALIZER.into());
    } else if is_needed(server, current)? {
        let text =
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        set_ready(server, &mut wanted, "False", "Terminating", text);
        finalizers.push(FINALIZER.into());
    }
    let metadata = strategy::metadata(&mut wanted);
    match finalizers.is_empty() {
        true => metadata.shift_remove("finalizers"),
        false => metadata.insert("finalizers".into(), finalizers.into()),
    };
    Ok(wanted)
}

fn set_ready(server: &ApiServer, range: &mut Value, status: &str, reason: &str, message: &str) {
    let conditions = range["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is_ready = |condition: &Value| condition["type"] == "Ready";
    if conditions.iter().any(|condition| is_ready(condition) && condition["status"] == status) {
        return;
    }
    let now = strategy::time_text(server.config.clock.now());
    let ready = json!({
        "type": "Ready", "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    let others = conditions.into_iter().filter(|condition| !is_ready(condition));
    range["status"] = json!({"conditions": others.chain([ready]).collect::<Vec<_>>()});
}

/// Some address is in this range and in no other that stays.
fn is_needed(server: &ApiServer, range: &Value) -> Result<bool, Status> {
    let own = ranges::cidrs(range);
    let others = entries(server, RANGES)?;
    let others = others.iter().filter_map(|entry| codec::object(entry)).filter(|other| !strategy::is_deleting(other));
    let others: Vec<ipnet::IpNet> = others.flat_map(|other| ranges::cidrs(&other)).collect();
    let needs = |address: &IpAddr| {
        own.iter().any(|range| range.contains(address)) && !others.iter().any(|range| range.contains(address))
    };
    let addresses = entries(server, ADDRESSES)?;
    Ok(server.addresses.is_reserved(needs) || addresses.iter().filter_map(|entry| address_of(entry)).any(|a| needs(&a)))
}
