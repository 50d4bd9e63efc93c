//! A rollout is played against a small model of ReplicaSets whose pods become available one step later.

use std::collections::BTreeMap;

use isopod_types::pod::Pod;
use isopod_types::workload::{Deployment, ReplicaSet, ReplicaSetStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan;
use crate::plan::Write;

struct Model {
    deployment: Value,
    sets: BTreeMap<String, Value>,
    step: i64,
    /// Names of sets whose pods never become available.
    broken: Vec<String>,
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

impl Model {
    fn new(replicas: i64, strategy: Value) -> Self {
        let template =
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}});
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template, "strategy": strategy},
        });
        Self { deployment, sets: BTreeMap::new(), step: 0, broken: Vec::new() }
    }

    fn image(&mut self, image: &str) {
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    }

    /// One decision, carried out. Returns the number of writes.
    fn decide(&mut self) -> usize {
        let deployment: Deployment = serde_json::from_value(self.deployment.clone()).unwrap();
        let sets: Vec<ReplicaSet> =
            self.sets.values().map(|set| serde_json::from_value(set.clone()).unwrap()).collect();
        let now = Timestamp::from_second(self.step).unwrap();
        let plan = plan(&deployment, &sets.iter().collect::<Vec<_>>(), &[] as &[&Pod], now);
        for write in &plan.writes {
            self.apply(write);
        }
        plan.writes.len()
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create { object, .. } => {
                let mut set = object.clone();
                let name = set["metadata"]["name"].as_str().unwrap().to_owned();
                set["metadata"]["uid"] = json!(name);
                set["metadata"]["creationTimestamp"] = json!(Timestamp::from_second(self.step).unwrap());
                self.sets.insert(name, set);
            }
            Write::Patch { target, patch, .. } if target.kind == "Deployment" => merge(&mut self.deployment, patch),
            Write::Patch { target, patch, .. } => merge(self.sets.get_mut(&target.key.name).unwrap(), patch),
            Write::Delete { target, .. } => drop(self.sets.remove(&target.key.name)),
            _ => {}
        }
    }

    /// Pods follow their sets: surplus ones go at once, new ones become available a step later.
    fn run_pods(&mut self) {
        for (name, set) in &mut self.sets {
            let wanted = set["spec"]["replicas"].as_i64().unwrap();
            let mut status: ReplicaSetStatus = serde_json::from_value(set["status"].clone()).unwrap_or_default();
            let ready = if self.broken.contains(name) { 0 } else { status.replicas.min(wanted) };
            (status.ready_replicas, status.available_replicas, status.replicas) = (ready, ready, wanted);
            set["status"] = json!(status);
        }
        self.step += 1;
    }

    fn sizes(&self) -> Vec<i64> {
        self.sets.values().map(|set| set["spec"]["replicas"].as_i64().unwrap()).filter(|n| *n > 0).collect()
    }

    fn available(&self) -> i64 {
        self.sets.values().map(|set| set["status"]["availableReplicas"].as_i64().unwrap_or(0)).sum()
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let writes = self.decide();
            self.run_pods();
            if writes == 0 && self.decide() == 0 {
                return;
            }
        }
        panic!("did not settle: {:?}", self.sizes());
    }

    fn condition(&self, type_: &str) -> String {
        let conditions = self.deployment["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|c| c["type"] == type_).unwrap()["reason"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_deployment_comes_up_and_reports_it() {
    let mut model = Model::new(3, json!({"type": "RollingUpdate"}));
    model.settle();
    assert_eq!(model.sizes(), [3]);
    assert_eq!(model.condition("Progressing"), "NewReplicaSetAvailable");
    assert_eq!(model.condition("Available"), "MinimumReplicasAvailable");
    assert_eq!(model.deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
}

/// Every size of update keeps its bounds at every step.
#[test]
fn a_rolling_update_keeps_its_bounds() {
    for (replicas, surge, unavailable) in [(1, 1, 0), (3, 1, 0), (4, 0, 1), (10, 3, 2), (5, 5, 5), (2, 0, 2)] {
        let mut model = Model::new(
            replicas,
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}),
        );
        model.settle();
        model.image("v2");
        for _ in 0..60 {
            model.decide();
            let total: i64 = model.sizes().iter().sum();
            assert!(total <= replicas + surge, "{replicas} {surge} {unavailable}: {total}");
            model.run_pods();
            assert!(
                model.available() >= replicas - unavailable,
                "{replicas} {surge} {unavailable}: {}",
                model.available()
            );
        }
        assert_eq!(model.sizes(), [replicas]);
        assert_eq!(model.sets.len(), 2);
    }
}

#[test]
fn a_broken_template_stops_the_rollout_and_undo_brings_the_old_set_back() {
    let mut model = Model::new(4, json!({"type": "RollingUpdate"}));
    model.settle();
    let first = model.sets.keys().next().unwrap().clone();
    model.image("bad");
    model.decide();
    model.broken = model.sets.keys().filter(|name| **name != first).cloned().collect();
    for _ in 0..20 {
        model.run_pods();
        model.decide();
    }
    assert_eq!(model.available(), 3);
    model.step += 700;
    model.decide();
    assert_eq!(model.condition("Progressing"), "ProgressDeadlineExceeded");
    model.image("v1");
    model.settle();
    assert_eq!(model.sets[&first]["spec"]["replicas"], 4);
    assert_eq!(model.sets[&first]["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut model =
        Model::new(10, json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}));
    model.settle();
    model.image("v2");
    model.decide();
    model.broken = model
        .sets
        .keys()
        .filter(|name| model.sets[*name]["spec"]["template"]["spec"]["containers"][0]["image"] == "v2")
        .cloned()
        .collect();
    for _ in 0..10 {
        model.run_pods();
        model.decide();
    }
    let mut sizes = model.sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 8]);
    model.deployment["spec"]["replicas"] = json!(30);
    model.decide();
    let mut sizes = model.sizes();
    sizes.sort_unstable();
    // 33 pods are allowed; 8/13 and 5/13 of them.
    assert_eq!(sizes, [13, 20]);
}

#[test]
fn recreate_has_no_old_pod_beside_a_new_one() {
    let mut model = Model::new(3, json!({"type": "Recreate"}));
    model.settle();
    model.image("v2");
    for _ in 0..10 {
        model.decide();
        assert!(model.sizes().len() <= 1, "{:?}", model.sizes());
        model.run_pods();
    }
    assert_eq!(model.sizes(), [3]);
    assert_eq!(model.sets.len(), 2);
}

#[test]
fn a_paused_deployment_only_scales() {
    let mut model = Model::new(2, json!({"type": "RollingUpdate"}));
    model.settle();
    model.deployment["spec"]["paused"] = json!(true);
    model.image("v2");
    model.deployment["spec"]["replicas"] = json!(5);
    model.settle();
    assert_eq!((model.sizes(), model.sets.len()), (vec![5], 1));
    assert_eq!(model.condition("Progressing"), "DeploymentPaused");
}

#[test]
fn old_sets_beyond_the_limit_go() {
    let mut model = Model::new(1, json!({"type": "RollingUpdate"}));
    model.deployment["spec"]["revisionHistoryLimit"] = json!(2);
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        model.image(image);
        model.settle();
    }
    assert_eq!(model.sets.len(), 3);
}
