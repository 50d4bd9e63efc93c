//! Node groups by tables of cases.

use super::*;
use isopod_types::names::{HOST_LABEL, INSTANCE_TYPE_LABEL};

fn group(min: i64, max: i64, desired: i64) -> NodeGroup {
    serde_json::from_value(json!({
        "metadata": {"name": "workers", "uid": "g", "finalizers": [NODEGROUP_FINALIZER]},
        "spec": {"instanceType": "t3.medium", "minSize": min, "maxSize": max, "desiredSize": desired, "volumeSizeGib": 20,
                 "labels": {"tier": "db"}, "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
    }))
    .unwrap()
}

fn cluster() -> ClusterSpec {
    serde_json::from_value(json!({
        "region": "eu-west-1",
        "vpc": {"cidr": "192.168.0.0/16", "subnets": [{"id": "subnet-a", "cidr": "192.168.96.0/19", "zone": "eu-west-1a"}]},
    }))
    .unwrap()
}

fn host(cpu: &str, memory: &str) -> Host {
    serde_json::from_value(
        json!({"metadata": {"name": "h1"}, "status": {"allocatable": {"cpu": cpu, "memory": memory}}}),
    )
    .unwrap()
}

/// `name words...`: `ready`, `draining`.
fn node(text: &str) -> Node {
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let words: Vec<&str> = words.collect();
    let draining = words.contains(&"draining").then_some("1970-01-01T00:00:00Z");
    let ready = if words.contains(&"ready") { "True" } else { "False" };
    let mut annotations = json!({});
    if let Some(since) = draining {
        annotations[DRAINING_ANNOTATION] = json!(since);
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "uid": name, "annotations": annotations,
            "labels": {NODEGROUP_LABEL: "workers", INSTANCE_TYPE_LABEL: "t3.medium", HOST_LABEL: "h1"},
        },
        "spec": {"podCIDR": format!("192.168.128.{}/27", 32 * name.len())},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap()
}

/// `node/name kind`: kind of the owner, or `failed`.
fn pod(text: &str) -> Pod {
    let (place, kind) = text.split_once(' ').unwrap();
    let (node, name) = place.split_once('/').unwrap();
    let phase = if kind == "failed" { "Failed" } else { "Running" };
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "x", "uid": name, "ownerReferences": [{"kind": kind, "controller": true}]},
        "spec": {"nodeName": node}, "status": {"phase": phase},
    }))
    .unwrap()
}

/// One line for each write: what, which, and what matters of it.
fn told(plan: &Plan) -> Vec<String> {
    let line = |write: &Write| match write {
        Write::Create { object, .. } => format!("make {} {}", object["metadata"]["name"], object["spec"]["podCIDR"]),
        Write::Patch { target, subresource: "status", patch } => {
            let status = &patch["status"];
            format!("status {} {}/{}", target.key.name, status["readyNodes"], status["nodes"])
                + " "
                + status["phase"].as_str().unwrap()
        }
        Write::Patch { target, patch, .. } if target.kind == "Node" => {
            format!("{} {}", if patch["spec"]["unschedulable"] == true { "drain" } else { "keep" }, target.key.name)
        }
        Write::Patch { patch, .. } => format!("finalizers {}", patch["metadata"]["finalizers"]),
        Write::Delete { target, .. } => format!("delete {} {}", target.kind, target.key.name),
        Write::Evict { target } => format!("evict {}", target.key.name),
        Write::Event { reason, .. } => format!("event {}", reason.reason),
        other => panic!("{other:?}"),
    };
    plan.writes.iter().map(line).map(|line| line.replace('"', "")).collect()
}

fn check(group: &NodeGroup, nodes: &[&str], pods: &[&str], expected: &[&str]) {
    check_on(&host("8", "16Gi"), group, nodes, pods, expected);
}

fn check_on(host: &Host, group: &NodeGroup, nodes: &[&str], pods: &[&str], expected: &[&str]) {
    let cluster = cluster();
    let nodes: Vec<Node> = nodes.iter().map(|text| node(text)).collect();
    let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
    let pods_on = |name: &str| pods.iter().filter(|pod| pod.spec.node_name == name).collect();
    let world = World { cluster: &cluster, hosts: vec![host], nodes: nodes.iter().collect(), pods_on: &pods_on };
    assert_eq!(told(&plan(group, &world, Timestamp::UNIX_EPOCH)), expected);
}

#[test]
fn groups_grow_where_there_is_room() {
    check(
        &group(0, 2, 2),
        &[],
        &[],
        &[
            "make ip-192-168-128-1.eu-west-1.compute.internal 192.168.128.0/27",
            "make ip-192-168-128-33.eu-west-1.compute.internal 192.168.128.32/27",
            "status workers 0/0 CREATING",
        ],
    );
    check(&group(0, 2, 1), &["a ready"], &[], &["status workers 1/1 ACTIVE"]);
    // Eight processors and two each: the fifth has no room.
    let four = ["a ready", "aa ready", "aaa ready", "aaaa ready"];
    check(&group(0, 9, 5), &four, &[], &["event InsufficientCapacity", "status workers 4/4 DEGRADED"]);
    // Desired sizes stay within their bounds.
    check(&group(1, 1, 9), &["a ready"], &[], &["status workers 1/1 ACTIVE"]);
    check(&group(1, 2, 0), &["a ready"], &[], &["status workers 1/1 ACTIVE"]);
}

#[test]
fn nothing_is_said_before_a_host_has_said_what_it_has() {
    check_on(&Host::default(), &group(0, 2, 2), &[], &[], &["status workers 0/0 CREATING"]);
}

#[test]
fn groups_shrink_by_draining() {
    let pods = ["a/web ReplicaSet", "a/agent DaemonSet", "a/old failed"];
    // The one without pods is chosen, unless another is not ready.
    check(&group(0, 2, 1), &["a ready", "aa ready"], &pods, &["drain aa", "status workers 2/2 CREATING"]);
    check(&group(0, 2, 1), &["a", "aa ready"], &pods, &["drain a", "status workers 1/2 CREATING"]);
    // Pods are evicted; those of the node itself and ended ones go with it.
    let draining = ["a ready draining", "aa ready"];
    check(&group(0, 2, 1), &draining, &pods, &["evict web", "status workers 1/2 CREATING"]);
    check(
        &group(0, 2, 1),
        &draining,
        &pods[1..],
        &["delete Node a", "delete Pod agent", "delete Pod old", "status workers 1/2 CREATING"],
    );
    // A group that grows again keeps what was to go.
    check(&group(0, 2, 2), &draining, &pods, &["keep a", "status workers 1/2 CREATING"]);
}

#[test]
fn a_group_that_is_deleted_takes_its_nodes_first() {
    let mut gone = group(1, 1, 1);
    gone.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
    check(&gone, &["a ready"], &["a/web ReplicaSet"], &["drain a", "evict web", "status workers 1/1 DELETING"]);
    check(&gone, &["a ready draining"], &[], &["delete Node a", "status workers 0/1 DELETING"]);
    check(&gone, &[], &[], &["finalizers []"]);
    let mut fresh = group(0, 0, 0);
    fresh.metadata.finalizers.clear();
    check(&fresh, &[], &[], &["finalizers [isopod.dev/nodegroup]", "status workers 0/0 ACTIVE"]);
}
