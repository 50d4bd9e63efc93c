//! Prints how many pods a second the default scheduler places: `cargo run --release -p isopod-planner --example scheduling`.
//!
//! Only decisions are measured: no API, no watches. Every decision's outcome is fed back as a watch would.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on stops where it is")]
#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::disallowed_types, reason = "it measures time; the planner does not")]

use std::collections::BTreeMap;
use std::time::Instant;

use isopod_planner::scheduler::volumes::Storage;
use isopod_planner::scheduler::{Scheduler, World};
use isopod_planner::{Plan, Write};
use isopod_types::node::Node;
use isopod_types::pod::Pod;
use isopod_types::{Key, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

const NODES: usize = 1000;
const PODS: usize = 10_000;

fn node(i: usize) -> Node {
    let name = format!("node-{i}");
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 3)});
    let status = json!({"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status})).unwrap()
}

fn pod(i: usize, more: &Value) -> Pod {
    let container =
        json!({"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}});
    let mut spec = json!({"schedulerName": "default-scheduler", "containers": [container]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let owner = json!([{"uid": format!("set-{}", i % 100), "kind": "ReplicaSet", "controller": true}]);
    let labels = json!({"app": format!("app-{}", i % 100)});
    let metadata = json!({"name": format!("pod-{i}"), "namespace": "x", "uid": i.to_string(), "labels": labels, "ownerReferences": owner});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn bound(plan: &Plan) -> Option<&str> {
    plan.writes.iter().find_map(|write| match write {
        Write::Bind { node, .. } => Some(node.as_str()),
        _ => None,
    })
}

fn measure(what: &str, pods: usize, more: impl Fn(usize) -> Value) {
    let mut scheduler = Scheduler::default();
    (0..NODES).for_each(|i| {
        scheduler.node_changed(None, Some(&node(i)));
    });
    let mut all: BTreeMap<Key, Pod> = (0..pods).map(|i| pod(i, &more(i))).map(|pod| (pod.key(), pod)).collect();
    let (claims, volumes, classes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let storage = Storage { claims: &claims, volumes: &volumes, classes: &classes };
    let begin = Instant::now();
    all.values().for_each(|pod| {
        scheduler.pod_changed(None, Some(pod));
    });
    let (mut placed, mut decided) = (0, 0);
    loop {
        let world = World { pods: &all, storage, budgets: &Vec::new, explain: &|_| String::new() };
        let (Some(key), plan) = scheduler.decide(world, Timestamp::UNIX_EPOCH) else { break };
        decided += 1;
        let Some(node) = bound(&plan) else { continue };
        let mut after = all[&key].clone();
        node.clone_into(&mut after.spec.node_name);
        scheduler.pod_changed(all.get(&key), Some(&after));
        all.insert(key, after);
        placed += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let per_second = f64::from(decided) / seconds;
    println!(
        "{what:<40} {NODES} nodes, {placed} of {pods} pods placed in {seconds:.2} s: {per_second:.0} decisions a second"
    );
}

fn main() {
    let selector = |i: usize| json!({"matchLabels": {"app": format!("app-{}", i % 100)}});
    measure("plain pods of 100 sets", PODS, |_| json!({}));
    measure("spread over zones and hosts", PODS, |i| {
        let rule = |key: &str| json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector(i)});
        json!({"topologySpreadConstraints": [rule("topology.kubernetes.io/zone"), rule("kubernetes.io/hostname")]})
    });
    measure("anti-affinity by host", PODS, |i| {
        let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector(i)});
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    });
    measure("too large, with nobody to push out", 1000, |_| json!({"nodeSelector": {"none": "such"}}));
}
