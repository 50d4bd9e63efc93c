//! Nodes in trouble and the pods on them: silence, taints, and pods that nobody will ever end.

use std::collections::BTreeMap;
use std::time::Instant;

use isopod_planner::node_lifecycle::{self, Signs, lease_names};
use isopod_planner::scheduler::taints::{NO_EXECUTE, OUT_OF_SERVICE};
use isopod_planner::{Plan, hosts, pod_gc, taint_eviction};
use isopod_types::lease::{Lease, NODE_LEASES};
use isopod_types::node::{Node, Taint};
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use jiff::Timestamp;

use super::{Loop, State};
use crate::cache::{Cache, Changed};

pub(super) const LIFECYCLE: Loop = Loop { name: "node-lifecycle", touched: touched_nodes, decide: decide_life };
pub(super) const HOSTS: Loop = Loop { name: "host-lifecycle", touched: touched_hosts, decide: decide_host };
pub(super) const EVICTION: Loop = Loop { name: "taint-eviction", touched: touched_taints, decide: decide_eviction };
pub(super) const ORPHANS: Loop = Loop { name: "pod-gc-node", touched: touched_orphans, decide: decide_orphans };
pub(super) const UNSCHEDULED: Loop = Loop { name: "pod-gc", touched: touched_unscheduled, decide: decide_unscheduled };
pub(super) const ENDED: Loop = Loop { name: "pod-gc-ended", touched: touched_ended, decide: decide_ended };

/// A moment by both clocks: the one on the wall, and the one that stands still while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall: Timestamp,
    tick: Instant,
}

impl Moment {
    /// This moment.
    pub(crate) fn at(wall: Timestamp) -> Self {
        Self { wall, tick: Instant::now() }
    }

    /// The time on the wall at which an earlier tick would have been, had nobody slept since.
    fn wall_of(self, tick: Instant) -> Timestamp {
        self.wall.checked_sub(self.tick.saturating_duration_since(tick)).unwrap_or(self.wall)
    }
}

/// When things were seen by this process's own clock. Clocks of hosts are not trusted, a process that starts anew gives
/// everybody their time anew, and time that this machine slept through counts against nobody.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// Leases of nodes and hosts: what they said last, and when that was seen.
    leases: BTreeMap<String, (Option<Timestamp>, Instant)>,
    nodes: BTreeMap<String, Instant>,
    /// What `Ready` conditions of nodes gave as their last heartbeat, and when that was seen.
    heartbeats: BTreeMap<String, (Option<Timestamp>, Instant)>,
    hosts: BTreeMap<String, Instant>,
    /// `NoExecute` taints that do not say when they were put on, by node and taint.
    taints: BTreeMap<(String, String), Timestamp>,
    /// Nodes that pods are bound to and that are not there.
    missing: BTreeMap<String, Timestamp>,
}

/// Somebody says something, or is gone: when it is something new, it was said now.
fn hear(
    all: &mut BTreeMap<String, (Option<Timestamp>, Instant)>,
    name: String,
    said: Option<Option<Timestamp>>,
    now: Moment,
) {
    match said {
        None => drop(all.remove(&name)),
        said if all.get(&name).map(|(before, _)| *before) == said => {}
        Some(said) => drop(all.insert(name, (said, now.tick))),
    }
}

fn taint_key(node: &str, taint: &Taint) -> (String, String) {
    (node.to_owned(), format!("{}={}", taint.key, taint.value))
}

impl Sightings {
    /// Takes a change in.
    pub(super) fn observe(&mut self, changed: &Changed, now: Moment) {
        match changed {
            Changed::Lease(change) if change.key().namespace == NODE_LEASES => {
                let said = change.after.as_ref().map(|lease| lease.spec.renew_time);
                hear(&mut self.leases, change.key().name, said, now);
            }
            Changed::Node(change) => self.observe_node(&change.key().name, change.after.as_ref(), now),
            Changed::Host(change) => {
                let name = change.key().name;
                match change.after {
                    Some(_) => drop(self.hosts.entry(name).or_insert(now.tick)),
                    None => drop(self.hosts.remove(&name)),
                }
            }
            _ => {}
        }
    }

    /// Signs of a host's life.
    fn signs_of_host(&self, name: &str, now: Moment) -> Signs {
        let renewed = self.leases.get(name).map(|(_, seen)| now.wall_of(*seen));
        let first_seen = self.hosts.get(name).map_or(now.wall, |seen| now.wall_of(*seen));
        Signs { renewed, first_seen }
    }

    fn observe_node(&mut self, name: &str, node: Option<&Node>, now: Moment) {
        let undated: Vec<_> = node.into_iter().flat_map(undated).map(|taint| taint_key(name, taint)).collect();
        let of_node = |key: &(String, String)| key.0 == name;
        let range = (name.to_owned(), String::new())..;
        let gone: Vec<_> = self.taints.range(range).map(|(key, _)| key.clone()).take_while(of_node).collect();
        for key in gone.iter().filter(|key| !undated.contains(key)) {
            self.taints.remove(key);
        }
        undated.into_iter().for_each(|key| {
            self.taints.entry(key).or_insert(now.wall);
        });
        let ready = node.and_then(|node| node.status.conditions.iter().find(|one| one.type_ == "Ready"));
        // What is said about a silent node is no sign of it.
        if ready.is_none_or(|ready| ready.status != "Unknown") {
            let said = ready.map(|ready| ready.last_heartbeat_time);
            hear(&mut self.heartbeats, name.to_owned(), said, now);
        }
        if node.is_some() {
            self.missing.remove(name);
            self.nodes.entry(name.to_owned()).or_insert(now.tick);
        } else {
            self.nodes.remove(name);
        }
    }

    fn signs(&self, node: &Node, now: Moment) -> Signs {
        let lease = lease_names(node).find_map(|name| self.leases.get(name));
        let heard = lease.into_iter().chain(self.heartbeats.get(&node.metadata.name)).map(|(_, seen)| *seen).max();
        let renewed = heard.map(|seen| now.wall_of(seen));
        let first_seen = self.nodes.get(&node.metadata.name).map_or(now.wall, |seen| now.wall_of(*seen));
        Signs { renewed, first_seen }
    }

    /// A node's taints, each with when it was put on.
    fn dated(&self, node: &Node, now: Timestamp) -> Vec<Taint> {
        let date = |taint: &Taint| {
            let seen = self.taints.get(&taint_key(&node.metadata.name, taint)).copied().unwrap_or(now);
            Taint { time_added: taint.time_added.or(Some(seen)), ..taint.clone() }
        };
        node.spec.taints.iter().map(date).collect()
    }
}

fn driving(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().filter(|taint| taint.effect == NO_EXECUTE)
}

fn undated(node: &Node) -> impl Iterator<Item = &Taint> {
    driving(node).filter(|taint| taint.time_added.is_none())
}

/// The pods on a node that have not ended.
fn pods_on<'a>(state: &'a State, node: &str) -> impl Iterator<Item = &'a Pod> + use<'a> {
    let pods = state.placed.on(node).filter_map(|key| state.cache.pods.get(key));
    pods.filter(|pod| !pod.is_terminal())
}

fn touched_nodes(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Node(change) => vec![change.key()],
        // What a renewal means is asked for when the time is up.
        Changed::Lease(change) if change.before.is_none() || change.after.is_none() => {
            let lease = change.sides().find(|lease| lease.metadata.namespace == NODE_LEASES);
            let spoken_for = |lease: &Lease| {
                let nodes = cache.nodes.all().filter(|node| lease_names(node).any(|name| name == lease.metadata.name));
                nodes.map(Object::key).collect()
            };
            lease.map(spoken_for).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn decide_life(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    // A node that only stands in the cache for a write under way has no UID yet.
    let node = state.cache.nodes.get(key).filter(|node| !node.metadata.uid.is_empty());
    let Some(node) = node else { return Plan::nothing() };
    let pods: Vec<&Pod> = pods_on(state, &key.name).collect();
    node_lifecycle::plan(node, &pods, state.sightings.signs(node, Moment::at(now)), now)
}

fn touched_hosts(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Host(change) => vec![change.key()],
        // The first word of a host, the first after a silence, and the last.
        Changed::Lease(change) if change.key().namespace == NODE_LEASES => {
            let host = Key::cluster(change.key().name);
            let is_news = change.before.is_none() || change.after.is_none();
            let found = cache.hosts.get(&host).filter(|host| is_news || !hosts::answers(host));
            found.map(Object::key).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn decide_host(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let Some(host) = state.cache.hosts.get(key) else { return Plan::nothing() };
    hosts::life(host, state.sightings.signs_of_host(&key.name, Moment::at(now)), now)
}

fn node_of(pod: &Pod) -> Option<Key> {
    (!pod.spec.node_name.is_empty()).then(|| Key::cluster(&*pod.spec.node_name))
}

fn touched_taints(cache: &Cache, changed: &Changed) -> Vec<Key> {
    match changed {
        Changed::Node(change) if change.sides().any(|node| driving(node).next().is_some()) => vec![change.key()],
        Changed::Pod(change) => {
            let keys = change.after.iter().filter_map(node_of);
            keys.filter(|key| cache.nodes.get(key).is_some_and(|node| driving(node).next().is_some())).collect()
        }
        _ => Vec::new(),
    }
}

fn decide_eviction(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    let Some(node) = state.cache.nodes.get(key) else { return Plan::nothing() };
    taint_eviction::plan(&state.sightings.dated(node, now), pods_on(state, &key.name), now)
}

fn touched_orphans(cache: &Cache, changed: &Changed) -> Vec<Key> {
    let is_out = |node: &Node| node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
    match changed {
        Changed::Node(change) if change.after.as_ref().is_none_or(is_out) => vec![change.key()],
        Changed::Pod(change) => {
            let keys = change.after.iter().filter_map(node_of);
            keys.filter(|key| cache.nodes.get(key).is_none_or(is_out)).collect()
        }
        _ => Vec::new(),
    }
}

fn decide_orphans(state: &mut State, key: &Key, now: Timestamp) -> Plan {
    if let Some(node) = state.cache.nodes.get(key) {
        return pod_gc::of_node_out_of_service(node, pods_on(state, &key.name), now);
    }
    if pods_on(state, &key.name).next().is_none() {
        state.sightings.missing.remove(&key.name);
        return Plan::nothing();
    }
    let since = *state.sightings.missing.entry(key.name.clone()).or_insert(now);
    pod_gc::of_missing_node(pods_on(state, &key.name), since, now)
}

fn touched_unscheduled(_: &Cache, changed: &Changed) -> Vec<Key> {
    let Changed::Pod(change) = changed else { return Vec::new() };
    let ending = change.after.iter().filter(|pod| pod.metadata.is_deleting() && pod.spec.node_name.is_empty());
    ending.map(Object::key).collect()
}

fn decide_unscheduled(state: &mut State, key: &Key, _: Timestamp) -> Plan {
    state.cache.pods.get(key).map(pod_gc::of_unscheduled).unwrap_or_default()
}

fn touched_ended(cache: &Cache, changed: &Changed) -> Vec<Key> {
    let Changed::Pod(change) = changed else { return Vec::new() };
    let many = cache.pods.map().len() > pod_gc::ENDED_MAX;
    let ended = many && change.after.as_ref().is_some_and(Pod::is_terminal);
    if ended { vec![Key::default()] } else { Vec::new() }
}

fn decide_ended(state: &mut State, _: &Key, _: Timestamp) -> Plan {
    pod_gc::of_ended(state.cache.pods.all(), pod_gc::ENDED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Change;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A moment so many seconds after the first, of which the machine slept some.
    fn later(first: Instant, second: i64, slept: u64) -> Moment {
        let awake = std::time::Duration::from_secs(u64::try_from(second).unwrap() - slept);
        Moment { wall: at(second), tick: first + awake }
    }

    fn lease(renewed: Option<i64>) -> Changed {
        let lease = renewed.map(|second| {
            let lease = json!({"metadata": {"name": "h", "namespace": NODE_LEASES}, "spec": {"renewTime": at(second)}});
            serde_json::from_value(lease).unwrap()
        });
        let before = serde_json::from_value(json!({"metadata": {"name": "h", "namespace": NODE_LEASES}})).ok();
        Changed::Lease(Change { before, after: lease })
    }

    fn node(taints: Value) -> Node {
        let labels = json!({"isopod.dev/host": "h"});
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}}))
            .unwrap()
    }

    #[test]
    fn a_lease_lives_when_it_changes_whatever_its_holders_clock_says() {
        let mut seen = Sightings::default();
        let first = Instant::now();
        for (said, second, slept, expected) in [
            (Some(7), 100, 0, Some(100)),
            (Some(7), 110, 0, Some(100)),
            (Some(3), 120, 0, Some(120)),
            // Of the last hour, this machine was awake for ten seconds.
            (Some(3), 3720, 3590, Some(3710)),
            (None, 3730, 3590, None),
        ] {
            let now = later(first, second, slept);
            seen.observe(&lease(said), now);
            assert_eq!(seen.signs(&node(json!([])), now).renewed, expected.map(at), "{second}");
        }
    }

    #[test]
    fn taints_without_a_date_count_from_when_they_were_seen() {
        let mut seen = Sightings::default();
        let undated = json!([{"key": "k", "effect": "NoExecute"}]);
        for (taints, now, expected) in [
            (undated.clone(), 10, Some(10)),
            (undated.clone(), 20, Some(10)),
            (json!([]), 30, None),
            (undated.clone(), 40, Some(40)),
        ] {
            let node = node(taints);
            let moment = later(Instant::now(), now, 0);
            seen.observe(&Changed::Node(Change { before: None, after: Some(node.clone()) }), moment);
            let dated = seen.dated(&node, at(now));
            assert_eq!(dated.first().and_then(|taint| taint.time_added), expected.map(at), "{now}");
        }
    }
}
