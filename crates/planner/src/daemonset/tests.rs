//! A DaemonSet is played against a small model of nodes whose pods become ready one step after they are made.

use std::collections::BTreeMap;

use isopod_types::daemonset::DaemonSet;
use isopod_types::node::Node;
use isopod_types::pod::Pod;
use isopod_types::statefulset::ControllerRevision;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::nodes::{Daemon, Fit, node_of};
use super::{Failures, World, plan};
use crate::plan::{Plan, Write};

struct Model {
    set: Value,
    nodes: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
    revisions: BTreeMap<String, Value>,
    made: usize,
    second: i64,
    broken: Vec<&'static str>,
    failures: Failures,
}

fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in fields {
                merge(&mut into[key], value);
            }
        }
        other => *into = other.clone(),
    }
}

fn parse<K: serde::de::DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

fn all<K: serde::de::DeserializeOwned>(values: &BTreeMap<String, Value>) -> Vec<K> {
    values.values().map(parse).collect()
}

impl Model {
    fn new(nodes: usize, more: Value) -> Self {
        let template =
            json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}});
        let mut set = json!({
            "metadata": {"name": "agent", "namespace": "x", "uid": "d", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template, "updateStrategy": {"type": "RollingUpdate"}},
        });
        merge(&mut set["spec"], &more);
        let node = |number: usize| {
            (format!("n{number}"), json!({"metadata": {"name": format!("n{number}"), "labels": {"os": "linux"}}}))
        };
        Self {
            set,
            nodes: (0..nodes).map(node).collect(),
            pods: BTreeMap::new(),
            revisions: BTreeMap::new(),
            made: 0,
            second: 100,
            broken: Vec::new(),
            failures: Failures::default(),
        }
    }

    fn image(&mut self, image: &str) {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    }

    fn plan(&mut self) -> Plan {
        let (pods, nodes, revisions): (Vec<Pod>, Vec<Node>, Vec<ControllerRevision>) =
            (all(&self.pods), all(&self.nodes), all(&self.revisions));
        let world = World {
            set: &parse::<DaemonSet>(&self.set),
            pods: &pods.iter().collect::<Vec<_>>(),
            revisions: &revisions.iter().collect::<Vec<_>>(),
            nodes: &nodes.iter().collect::<Vec<_>>(),
            now: Timestamp::from_second(self.second).unwrap(),
        };
        plan(world, &mut self.failures)
    }

    fn decide(&mut self) -> usize {
        let plan = self.plan();
        plan.writes.iter().for_each(|write| self.apply(write));
        plan.writes.len()
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create { target, object, .. } => {
                self.made += 1;
                let mut object = object.clone();
                let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
                if target.key.name.is_empty() {
                    object["metadata"]["name"] = json!(format!("{prefix}{:03}", self.made));
                }
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                object["metadata"]["uid"] = json!(format!("u{}", self.made));
                object["metadata"]["creationTimestamp"] = json!(Timestamp::from_second(self.second).unwrap());
                let all = if target.kind == "Pod" { &mut self.pods } else { &mut self.revisions };
                all.insert(name, object);
            }
            Write::Patch { target, patch, .. } if target.kind == "DaemonSet" => merge(&mut self.set, patch),
            Write::Patch { target, patch, .. } => merge(self.revisions.get_mut(&target.key.name).unwrap(), patch),
            Write::Delete { target, .. } if target.kind == "Pod" => {
                self.pods.get_mut(&target.key.name).unwrap()["metadata"]["deletionTimestamp"] =
                    json!("1970-01-01T00:00:00Z");
            }
            Write::Delete { target, .. } => drop(self.revisions.remove(&target.key.name)),
            _ => {}
        }
    }

    /// Pods that end are gone; those without a node are bound; those with one become ready.
    fn run_pods(&mut self) {
        self.second += 1;
        self.pods.retain(|_, pod| !pod["metadata"]["deletionTimestamp"].is_string());
        let now = Timestamp::from_second(self.second).unwrap();
        for pod in self.pods.values_mut().filter(|pod| pod["status"].is_null()) {
            let node = node_of(&parse(pod)).unwrap().to_owned();
            pod["spec"]["nodeName"] = json!(node);
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
            let is_broken = self.broken.iter().any(|image| pod["spec"]["containers"][0]["image"] == **image);
            pod["status"] = json!({"phase": "Running", "conditions": if is_broken { json!([]) } else { ready }});
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            let writes = self.decide();
            self.run_pods();
            if writes == 0 && self.decide() == 0 {
                return;
            }
        }
        panic!("did not settle: {:?}", self.on_nodes());
    }

    /// `node:image` of every pod.
    fn on_nodes(&self) -> Vec<String> {
        let text = |pod: &Pod| format!("{}:{}", node_of(pod).unwrap(), pod.spec.containers[0].image);
        let mut all: Vec<String> = all::<Pod>(&self.pods).iter().map(text).collect();
        all.sort();
        all
    }

    fn available(&self) -> usize {
        let is_there = |pod: &&Pod| pod.ready_since().is_some() && !pod.metadata.is_deleting();
        all::<Pod>(&self.pods).iter().filter(is_there).count()
    }

    fn status(&self, field: &str) -> i64 {
        self.set["status"][field].as_i64().unwrap()
    }
}

#[test]
fn every_node_that_takes_it_has_a_pod() {
    let mut model = Model::new(3, json!({}));
    model.nodes.get_mut("n2").unwrap()["metadata"]["labels"]["eks.amazonaws.com/compute-type"] = json!("fargate");
    model.settle();
    assert_eq!(model.on_nodes(), ["n0:v1", "n1:v1"]);
    for (field, expected) in [
        ("desiredNumberScheduled", 2),
        ("currentNumberScheduled", 2),
        ("numberReady", 2),
        ("numberAvailable", 2),
        ("updatedNumberScheduled", 2),
        ("numberUnavailable", 0),
        ("numberMisscheduled", 0),
    ] {
        assert_eq!(model.status(field), expected, "{field}");
    }
    model.nodes.insert("n3".into(), json!({"metadata": {"name": "n3"}}));
    model.settle();
    assert_eq!(model.on_nodes(), ["n0:v1", "n1:v1", "n3:v1"]);
    model.set["spec"]["template"]["spec"]["nodeSelector"] = json!({"os": "linux"});
    model.settle();
    assert_eq!(model.on_nodes(), ["n0:v1", "n1:v1"]);
}

#[test]
fn nodes_take_stay_or_refuse() {
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "effect": effect}]}});
    let trouble = json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}});
    let network =
        json!({"spec": {"taints": [{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]}});
    let affinity = |name: &str| {
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    for (node, spec, expected) in [
        (json!({}), json!({}), Fit::Yes),
        (taint("NoSchedule"), json!({}), Fit::Stays),
        (taint("NoExecute"), json!({}), Fit::No),
        (taint("NoExecute"), json!({"tolerations": [{"operator": "Exists"}]}), Fit::Yes),
        (taint("PreferNoSchedule"), json!({}), Fit::Yes),
        (trouble, json!({}), Fit::Yes),
        (network.clone(), json!({}), Fit::Stays),
        (network, json!({"hostNetwork": true}), Fit::Yes),
        (json!({"spec": {"unschedulable": true}}), json!({}), Fit::Yes),
        (json!({}), json!({"nodeName": "other"}), Fit::No),
        (json!({}), affinity("n"), Fit::Yes),
        (json!({}), affinity("other"), Fit::No),
        (json!({"metadata": {"labels": {"eks.amazonaws.com/compute-type": "fargate"}}}), json!({}), Fit::No),
    ] {
        let mut object = json!({"metadata": {"name": "n"}});
        merge(&mut object, &node);
        let set = json!({"spec": {"template": {"spec": spec}}});
        assert_eq!(Daemon::of(&parse(&set)).fit(&parse(&object)), expected, "{node} {spec}");
    }
}

#[test]
fn pods_are_pinned_to_their_node() {
    let mut model = Model::new(1, json!({}));
    model.decide();
    model.decide();
    let pod = model.pods.values().next().unwrap();
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    assert_eq!(pod.pointer(path).unwrap(), "n0");
    assert!(pod["spec"]["nodeName"].is_null());
    model.nodes.clear();
    model.settle();
    assert!(model.pods.is_empty(), "nobody will ever run it");
}

#[test]
fn failed_pods_are_replaced_but_not_in_a_hurry() {
    let mut model = Model::new(1, json!({}));
    model.settle();
    let fail = |model: &mut Model| {
        model.settle();
        let name = model.pods.keys().next().unwrap().clone();
        model.pods.get_mut(&name).unwrap()["status"] = json!({"phase": "Failed"});
        name
    };
    // The first is replaced at once; then it takes longer each time.
    let first = fail(&mut model);
    model.decide();
    assert!(model.pods[&first]["metadata"]["deletionTimestamp"].is_string());
    let mut replaced_at = 0;
    for _ in 0..3 {
        fail(&mut model);
        model.second += 10;
        replaced_at = model.second;
        model.decide();
    }
    for wait in [8, 16, 32] {
        let name = fail(&mut model);
        let due = replaced_at + wait;
        model.second = due - 1;
        model.decide();
        assert!(model.pods[&name]["metadata"]["deletionTimestamp"].is_null(), "{wait}");
        assert_eq!(model.plan().again_at.map(Timestamp::as_second), Some(due), "{wait}");
        model.second = due;
        model.decide();
        assert!(model.pods[&name]["metadata"]["deletionTimestamp"].is_string(), "{wait}");
        replaced_at = due;
    }
}

#[test]
fn one_that_goes_makes_no_revisions() {
    let mut model = Model::new(1, json!({}));
    model.settle();
    model.revisions.clear();
    model.set["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    assert_eq!(model.decide(), 0);
}

#[test]
fn templates_are_counted_on_the_pods() {
    let mut model = Model::new(2, json!({}));
    model.set["metadata"]["annotations"] = json!({"deprecated.daemonset.template.generation": "7"});
    model.settle();
    assert!(model.pods.values().all(|pod| pod["metadata"]["labels"]["pod-template-generation"] == "7"));
    // One of the labels is enough.
    let before: Vec<String> = model.pods.keys().cloned().collect();
    for pod in model.pods.values_mut() {
        pod["metadata"]["labels"]["controller-revision-hash"] = json!("another");
    }
    model.settle();
    assert_eq!(model.pods.keys().cloned().collect::<Vec<_>>(), before);
    model.set["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = json!("8");
    model.settle();
    assert!(model.pods.values().all(|pod| pod["metadata"]["labels"]["pod-template-generation"] == "8"));
}

#[test]
fn on_delete_leaves_replacing_to_the_user_and_a_rollback_restarts_nothing() {
    let mut model = Model::new(2, json!({"updateStrategy": {"type": "OnDelete"}}));
    model.settle();
    model.image("v2");
    model.settle();
    assert_eq!((model.on_nodes(), model.status("updatedNumberScheduled")), (vec!["n0:v1".into(), "n1:v1".into()], 0));
    let name = model.pods.iter().find(|(_, pod)| pod["spec"]["nodeName"] == "n0").unwrap().0.clone();
    model.pods.remove(&name);
    model.settle();
    assert_eq!(model.on_nodes(), ["n0:v2", "n1:v1"]);
    model.set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"});
    let untouched = model.pods.iter().find(|(_, pod)| pod["spec"]["nodeName"] == "n1").unwrap().0.clone();
    model.image("v1");
    model.settle();
    assert_eq!(model.on_nodes(), ["n0:v1", "n1:v1"]);
    assert!(model.pods.contains_key(&untouched));
}

#[test]
fn a_broken_template_stops_after_what_may_be_missing() {
    for (bounds, ready, pods) in
        [(json!({"maxUnavailable": 1}), 3, 4), (json!({"maxUnavailable": 0, "maxSurge": 1}), 4, 5)]
    {
        let mut model = Model::new(4, json!({"updateStrategy": {"rollingUpdate": bounds}}));
        model.settle();
        model.image("bad");
        model.broken = vec!["bad"];
        for _ in 0..30 {
            model.decide();
            model.run_pods();
        }
        assert_eq!((model.available(), model.pods.len()), (ready, pods));
        model.image("v1");
        model.settle();
        assert_eq!((model.available(), model.pods.len()), (4, 4));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// At every step of an update enough nodes have an available pod, and none has more than it may.
    #[test]
    fn an_update_keeps_its_bounds(nodes in 1..8usize, unavailable in 0..4usize, surge in 0..4usize) {
        let bounds = json!({"maxUnavailable": unavailable, "maxSurge": surge});
        let mut model = Model::new(nodes, json!({"updateStrategy": {"rollingUpdate": bounds}}));
        model.settle();
        model.image("v2");
        let missing = if surge > 0 { 0 } else { unavailable.max(1) };
        for _ in 0..40 {
            model.decide();
            prop_assert!(model.available() + missing >= nodes, "{} of {nodes}", model.available());
            prop_assert!(model.pods.len() <= nodes + surge, "{:?}", model.on_nodes());
            model.run_pods();
        }
        let expected: Vec<String> = (0..nodes).map(|number| format!("n{number}:v2")).collect();
        prop_assert_eq!(model.on_nodes(), expected);
        prop_assert_eq!(model.revisions.len(), 2);
    }
}
