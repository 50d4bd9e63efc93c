//! Room on hosts: what their nodes were promised, which host has room for one more, and which are not heard of.
//!
//! What is promised is counted from the nodes themselves, of both kinds, so nothing else has to be kept.

use std::collections::BTreeMap;

use isopod_types::disruption::MetaCondition;
use isopod_types::instances;
use isopod_types::names::{HOST_LABEL, INSTANCE_TYPE_LABEL, NODE_RELEASED_ANNOTATION, NODEGROUP_LABEL};
use isopod_types::node::Node;
use isopod_types::own::Host;
use jiff::Timestamp;
use serde_json::json;

use crate::fargate::node_tier;
use crate::node_lifecycle::Signs;
use crate::plan::{EventType, Plan, Reason, Target, Write};

const COMPONENT: &str = "host-controller";
const READY: &str = "Ready";

/// Size of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Thousandths of a processor.
    pub cpu_millis: i128,
    /// Bytes of memory.
    pub memory_bytes: i128,
}

/// Whether a node still holds room on its host.
pub fn holds_room(node: &Node) -> bool {
    !node.metadata.annotations.contains_key(NODE_RELEASED_ANNOTATION)
}

/// Size of a node's machine; none for nodes that are not on our hosts.
fn size(node: &Node) -> Option<Size> {
    if let Some(tier) = node_tier(node) {
        return Some(Size { cpu_millis: tier.vcpu_millis.into(), memory_bytes: tier.memory_bytes().into() });
    }
    let labels = &node.metadata.labels;
    let instance = labels.get(NODEGROUP_LABEL).and(labels.get(INSTANCE_TYPE_LABEL))?;
    let instance = instances::find(instance)?;
    Some(Size { cpu_millis: i128::from(instance.vcpu_count) * 1000, memory_bytes: instance.memory_bytes().into() })
}

fn promised(nodes: &[&Node]) -> BTreeMap<String, Size> {
    let mut by_host: BTreeMap<String, Size> = BTreeMap::new();
    for node in nodes.iter().filter(|node| holds_room(node)) {
        if let (Some(host), Some(size)) = (node.metadata.labels.get(HOST_LABEL), size(node)) {
            let sum = by_host.entry(host.clone()).or_default();
            sum.cpu_millis += size.cpu_millis;
            sum.memory_bytes += size.memory_bytes;
        }
    }
    by_host
}

fn room(host: &Host, promised: &BTreeMap<String, Size>) -> Size {
    let of = |resource: &str| host.status.allocatable.get(resource).copied().unwrap_or_default();
    let promised = promised.get(&host.metadata.name).copied().unwrap_or_default();
    Size {
        cpu_millis: of("cpu").milli() - promised.cpu_millis,
        memory_bytes: of("memory").units_ceil() - promised.memory_bytes,
    }
}

/// Whether a host has said what it has.
pub fn has_joined(host: &Host) -> bool {
    !host.status.allocatable.is_empty()
}

/// Whether a host is heard of, or has yet to be.
pub fn answers(host: &Host) -> bool {
    ready(host).is_none_or(|ready| ready.status == "True")
}

fn ready(host: &Host) -> Option<&MetaCondition> {
    host.status.conditions.iter().find(|one| one.type_ == READY)
}

/// Says whether a host is heard of, by its `Ready` condition.
pub fn life(host: &Host, signs: Signs, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if host.metadata.is_deleting() || host.metadata.uid.is_empty() {
        return plan;
    }
    let at = signs.silent_from();
    let (status, reason, message) = match (at > now, signs.renewed) {
        (false, _) => ("Unknown", "HostSilent", "The host's agent does not renew its lease."),
        (true, Some(_)) => ("True", "HostAgentReady", "The host's agent renews its lease."),
        (true, None) => {
            plan.wake_at(at);
            return plan;
        }
    };
    if at > now {
        plan.wake_at(at);
    }
    if ready(host).is_some_and(|ready| ready.status == status) {
        return plan;
    }
    let mut conditions = host.status.conditions.clone();
    conditions.retain(|one| one.type_ != READY);
    conditions.push(MetaCondition {
        type_: READY.into(),
        status: status.into(),
        observed_generation: host.metadata.generation,
        last_transition_time: Some(now),
        reason: reason.into(),
        message: message.into(),
    });
    let target = Target { resource_version: String::new(), ..Target::of::<Host>(&host.metadata) };
    let event = Reason {
        type_: if status == "True" { EventType::Normal } else { EventType::Warning },
        reason,
        message: message.into(),
    };
    plan.event(&target, COMPONENT, event);
    plan.push(Write::Patch { target, subresource: "status", patch: json!({"status": {"conditions": conditions}}) });
    plan
}

/// The host with the most memory left among those that have room for a machine; or what room each has.
///
/// # Errors
/// A phrase for a message.
pub fn choose(hosts: &[&Host], nodes: &[&Node], wanted: Size) -> Result<String, String> {
    let promised = promised(nodes);
    let open = hosts.iter().filter(|host| !host.spec.unschedulable && answers(host));
    let open = open.map(|host| (host, room(host, &promised)));
    let fits = |room: &Size| room.cpu_millis >= wanted.cpu_millis && room.memory_bytes >= wanted.memory_bytes;
    let best = open.filter(|(_, room)| fits(room)).max_by_key(|(host, room)| (room.memory_bytes, &host.metadata.name));
    best.map(|(host, _)| host.metadata.name.clone()).ok_or_else(|| rooms(hosts, &promised))
}

fn rooms(hosts: &[&Host], promised: &BTreeMap<String, Size>) -> String {
    let text = |host: &&Host| {
        let name = &host.metadata.name;
        if !answers(host) {
            return format!("{name} has not been heard of lately");
        }
        if host.spec.unschedulable {
            return format!("{name} takes nothing new");
        }
        let Size { cpu_millis, memory_bytes } = room(host, promised);
        format!("{name} has {}m vCPU and {} MiB left", cpu_millis.max(0), memory_bytes.max(0) >> 20)
    };
    let rooms: Vec<String> = hosts.iter().map(text).collect();
    if rooms.is_empty() { "no host has joined the cluster".into() } else { rooms.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn host(name: &str, memory: &str, ready: &str) -> Host {
        let conditions = if ready.is_empty() { json!([]) } else { json!([{"type": "Ready", "status": ready}]) };
        let allocatable = json!({"cpu": "4", "memory": memory});
        let status = json!({"allocatable": allocatable, "conditions": conditions});
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "status": status})).unwrap()
    }

    #[test]
    fn silent_hosts_have_no_room() {
        let wanted = Size { cpu_millis: 1000, memory_bytes: 1 << 30 };
        let hosts = [host("a", "8Gi", "Unknown"), host("b", "4Gi", "True"), host("c", "2Gi", "")];
        for (count, from, expected) in [
            (3, 0, Ok("b")),
            (1, 2, Ok("c")),
            (1, 0, Err("a has not been heard of lately")),
            (0, 0, Err("no host has joined the cluster")),
        ] {
            let some: Vec<&Host> = hosts[from..].iter().take(count).collect();
            let found = choose(&some, &[], wanted);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        }
        let mut cordoned = host("d", "8Gi", "True");
        cordoned.spec.unschedulable = true;
        assert_eq!(choose(&[&cordoned], &[], wanted).unwrap_err(), "d takes nothing new");
    }

    #[test]
    fn hosts_are_ready_as_long_as_they_are_heard_of() {
        for (before, renewed, now, said, again) in [
            ("", None, 59, None, Some(60)),
            ("", None, 60, Some("Unknown"), None),
            ("", Some(100), 100, Some("True"), Some(150)),
            ("True", Some(100), 149, None, Some(150)),
            ("True", Some(100), 150, Some("Unknown"), None),
            ("Unknown", Some(100), 200, None, None),
            ("Unknown", Some(200), 200, Some("True"), Some(250)),
        ] {
            let signs = Signs { renewed: renewed.map(at), first_seen: at(0) };
            let plan = life(&host("a", "1Gi", before), signs, at(now));
            let found = plan.writes.iter().find_map(|write| match write {
                Write::Patch { patch, .. } => patch["status"]["conditions"][0]["status"].as_str(),
                _ => None,
            });
            assert_eq!((found, plan.again_at), (said, again.map(at)), "{before} {renewed:?} {now}");
        }
    }
}
