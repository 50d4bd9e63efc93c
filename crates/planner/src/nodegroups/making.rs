//! New nodes of a group: where, under which addresses, and as which objects.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use isopod_types::instances::{self, InstanceType};
use isopod_types::names::{
    COMPUTE_TYPE, COMPUTE_TYPE_EC2, HOST_LABEL, INSTANCE_TYPE_LABEL, NODEGROUP_LABEL, VOLUME_SIZE_ANNOTATION,
};
use isopod_types::node::Node;
use isopod_types::own::{ClusterSpec, Host, NodeGroup};
use isopod_types::{Key, Object};
use serde_json::{Value, json};

use super::{World, blocks};
use crate::fargate::host_name;
use crate::hosts::{self, Size};
use crate::plan::{Target, Write};

/// Writes that make so many nodes; what cannot be made says why, and no more is tried.
pub(super) fn nodes(group: &NodeGroup, count: usize, world: &World<'_>) -> Vec<Result<Write, String>> {
    let mut made: Vec<Node> = Vec::new();
    let mut writes = Vec::new();
    for _ in 0..count {
        let all: Vec<&Node> = world.nodes.iter().copied().chain(&made).collect();
        match node(group, &all, world) {
            Ok(object) => {
                made.extend(serde_json::from_value::<Node>(object.clone()).ok());
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let target = Target::named::<Node>(Key::cluster(name));
                writes.push(Ok(Write::Create { target, object, tolerate_existing: false }));
            }
            Err(why) => {
                writes.push(Err(why));
                break;
            }
        }
    }
    writes
}

fn node(group: &NodeGroup, nodes: &[&Node], world: &World<'_>) -> Result<Value, String> {
    let name = &group.spec.instance_type;
    let instance = instances::find(name).ok_or_else(|| format!("instance type {name} is not known"))?;
    let host = hosts::choose(&world.hosts, nodes, size(instance)).map_err(|rooms| {
        let hint = "hint: choose a smaller instance type, delete pods, add a host, or raise fargate.memoryOvercommit";
        format!("no host has room for a node of type {name} ({rooms}; {hint})")
    })?;
    let used: Vec<Ipv4Net> = nodes.iter().filter_map(|node| node.spec.pod_cidr.parse().ok()).collect();
    let block = blocks::free(world.cluster, &used, instance.pods_max)
        .ok_or("no block of addresses is free for a node\nhint: the cluster's network (vpc.cidr) is too small")?;
    Ok(object(group, instance, &host, block, world.cluster))
}

/// A node as the group would make it, up and empty; no real node has the name that goes with `number`. None when no host has
/// room beside these nodes.
pub(super) fn imagined(
    group: &NodeGroup,
    number: u32,
    cluster: &ClusterSpec,
    hosts: &[&Host],
    nodes: &[&Node],
) -> Option<Node> {
    let instance = instances::find(&group.spec.instance_type)?;
    let host = hosts::choose(hosts, nodes, size(instance)).ok()?;
    // Reserved addresses (RFC 1112, section 4): no network of a cluster has them.
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(240, 0, 0, 0)).saturating_add(number));
    let mut node: Node = serde_json::from_value(object(group, instance, &host, address.into(), cluster)).ok()?;
    node.status.allocatable = instance.allocatable(u64::try_from(group.spec.volume_size_gib).unwrap_or(0));
    Some(node)
}

fn size(instance: InstanceType) -> Size {
    Size { cpu_millis: i128::from(instance.vcpu_count) * 1000, memory_bytes: instance.memory_bytes().into() }
}

fn object(group: &NodeGroup, instance: InstanceType, host: &str, block: Ipv4Net, cluster: &ClusterSpec) -> Value {
    let region = &cluster.region;
    let name = host_name(blocks::node_address(block), region);
    let zone = cluster.vpc.subnets.first().map_or("", |subnet| &subnet.zone);
    let own = [
        (NODEGROUP_LABEL, group.metadata.name.as_str()),
        (COMPUTE_TYPE, COMPUTE_TYPE_EC2),
        (INSTANCE_TYPE_LABEL, instance.name),
        (HOST_LABEL, host),
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", name.as_str()),
        ("topology.kubernetes.io/region", region.as_str()),
        ("topology.kubernetes.io/zone", zone),
    ];
    let mut labels: BTreeMap<&str, &str> = group.spec.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    labels.extend(own);
    json!({
        "apiVersion": Node::api_version(), "kind": Node::KIND,
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {VOLUME_SIZE_ANNOTATION: group.spec.volume_size_gib.to_string()},
        },
        "spec": {
            "podCIDR": block.to_string(),
            "podCIDRs": [block.to_string()],
            "providerID": format!("isopod:///{zone}/{name}"),
            "taints": group.spec.taints,
        },
    })
}
