//! Room on hosts: what their nodes were promised, and which host has room for one more.
//!
//! What is promised is counted from the nodes themselves, of both kinds, so nothing else has to be kept.

use std::collections::BTreeMap;

use isopod_types::instances;
use isopod_types::names::{HOST_LABEL, INSTANCE_TYPE_LABEL, NODE_RELEASED_ANNOTATION, NODEGROUP_LABEL};
use isopod_types::node::Node;
use isopod_types::own::Host;

use crate::fargate::node_tier;

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

/// The host with the most memory left among those that have room for a machine; or what room each has.
///
/// # Errors
/// A phrase for a message.
pub fn choose(hosts: &[&Host], nodes: &[&Node], wanted: Size) -> Result<String, String> {
    let promised = promised(nodes);
    let open = hosts.iter().filter(|host| !host.spec.unschedulable).map(|host| (host, room(host, &promised)));
    let fits = |room: &Size| room.cpu_millis >= wanted.cpu_millis && room.memory_bytes >= wanted.memory_bytes;
    let best = open.filter(|(_, room)| fits(room)).max_by_key(|(host, room)| (room.memory_bytes, &host.metadata.name));
    best.map(|(host, _)| host.metadata.name.clone()).ok_or_else(|| rooms(hosts, &promised))
}

fn rooms(hosts: &[&Host], promised: &BTreeMap<String, Size>) -> String {
    let text = |host: &&Host| {
        let Size { cpu_millis, memory_bytes } = room(host, promised);
        format!("{} has {}m vCPU and {} MiB left", host.metadata.name, cpu_millis.max(0), memory_bytes.max(0) >> 20)
    };
    let rooms: Vec<String> = hosts.iter().map(text).collect();
    if rooms.is_empty() { "no host has joined the cluster".into() } else { rooms.join(", ") }
}
