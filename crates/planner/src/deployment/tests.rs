//! A rollout is played against a small model of ReplicaSets whose pods become available one step later.

use std::collections::BTreeMap;

use isopod_types::pod::Pod;
use isopod_types::workload::{Deployment, ReplicaSet, ReplicaSetStatus};
use jiff::Timestamp;
use proptest::prelude::*;
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
    assert_eq!(model.sets[&first]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
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

#[test]
fn a_paused_deployment_scales_from_nothing() {
    let mut model = Model::new(0, json!({"type": "RollingUpdate"}));
    model.settle();
    model.deployment["spec"]["paused"] = json!(true);
    model.deployment["spec"]["replicas"] = json!(3);
    model.settle();
    assert_eq!(model.sizes(), [3]);
    model.deployment["spec"]["paused"] = json!(false);
    model.decide();
    assert_eq!(model.condition("Progressing"), "DeploymentResumed");
    model.settle();
    assert_eq!(model.condition("Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let mut model = Model::new(2, json!({"type": "RollingUpdate"}));
    let name = super::new_set_name(&serde_json::from_value(model.deployment.clone()).unwrap());
    let owners = json!([{"uid": "other", "controller": true}]);
    let stranger = json!({"metadata": {"name": name, "uid": "s", "ownerReferences": owners}, "spec": {"replicas": 0}, "status": {}});
    model.sets.insert(name.clone(), stranger);
    model.settle();
    assert_eq!(model.deployment["status"]["collisionCount"], 1);
    assert_eq!((model.sets.len(), model.sizes()), (2, vec![2]));
    assert_eq!(model.sets[&name]["spec"]["replicas"], 0, "what is another's is not touched");
}

#[test]
fn failures_of_sets_are_the_deployments() {
    let mut model = Model::new(2, json!({"type": "RollingUpdate"}));
    model.decide();
    let name = model.sets.keys().next().unwrap().clone();
    let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no"}]);
    model.sets.get_mut(&name).unwrap()["status"]["conditions"] = failure;
    model.decide();
    assert_eq!(model.condition("ReplicaFailure"), "FailedCreate");
    model.sets.get_mut(&name).unwrap()["status"]["conditions"] = json!([]);
    model.settle();
    assert!(model.deployment["status"]["conditions"].as_array().unwrap().iter().all(|c| c["type"] != "ReplicaFailure"));
}

#[test]
fn scaling_what_is_complete_is_no_rollout_and_a_new_wait_reaches_the_set() {
    let mut model = Model::new(2, json!({"type": "RollingUpdate"}));
    model.settle();
    model.deployment["spec"]["replicas"] = json!(5);
    model.decide();
    model.run_pods();
    model.decide();
    assert_eq!(model.condition("Progressing"), "NewReplicaSetAvailable");
    model.deployment["spec"]["minReadySeconds"] = json!(7);
    model.settle();
    assert_eq!(model.sets.values().next().unwrap()["spec"]["minReadySeconds"], 7);
}

/// Shares of a change for sets of these sizes; the first is of the current template.
#[test]
fn shares_are_upstreams() {
    for (wanted, before, surge, sizes, expected) in [
        (12, 10, 3, vec![5, 8], vec![6, 9]),
        (30, 10, 3, vec![5, 8], vec![13, 20]),
        (5, 10, 3, vec![5, 8], vec![3, 5]),
        (20, 10, 0, vec![5, 5], vec![10, 10]),
        (11, 10, 0, vec![5, 5], vec![6, 5]),
        (9, 10, 0, vec![5, 5], vec![5, 4]),
        (0, 10, 3, vec![5, 8], vec![0, 0]),
    ] {
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1}});
        let mut model = Model::new(before, rolling);
        model.settle();
        model.image("v2");
        model.decide();
        model.step += 1;
        let old = model
            .sets
            .iter()
            .find(|(_, set)| set["spec"]["template"]["spec"]["containers"][0]["image"] == "v1")
            .unwrap()
            .0
            .clone();
        for (name, set) in &mut model.sets {
            let size = if *name == old { sizes[1] } else { sizes[0] };
            set["spec"]["replicas"] = json!(size);
            set["metadata"]["creationTimestamp"] =
                json!(Timestamp::from_second(if *name == old { 0 } else { 9 }).unwrap());
            for (key, count) in [("desired-replicas", before), ("max-replicas", before + surge)] {
                set["metadata"]["annotations"][format!("deployment.kubernetes.io/{key}")] = json!(count.to_string());
            }
        }
        model.deployment["spec"]["replicas"] = json!(wanted);
        model.decide();
        let new = model.sets.iter().find(|(name, _)| **name != old).unwrap().1;
        let found = [new, &model.sets[&old]].map(|set| set["spec"]["replicas"].as_i64().unwrap());
        assert_eq!(found.to_vec(), expected, "{wanted} of {before}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the bounds, an update keeps them at every step and ends.
    #[test]
    fn any_rolling_update_keeps_its_bounds(replicas in 1..12i64, surge in 0..120i64, unavailable in 0..100i64) {
        let bounds = json!({"maxSurge": format!("{surge}%"), "maxUnavailable": format!("{unavailable}%")});
        let mut model = Model::new(replicas, json!({"type": "RollingUpdate", "rollingUpdate": bounds}));
        model.settle();
        model.image("v2");
        let most = replicas + (surge * replicas + 99) / 100;
        let mut missing = unavailable * replicas / 100;
        if most == replicas {
            missing = missing.max(1);
        }
        for _ in 0..60 {
            model.decide();
            prop_assert!(model.sizes().iter().sum::<i64>() <= most, "{:?}", model.sizes());
            model.run_pods();
            prop_assert!(model.available() >= replicas - missing, "{} of {replicas}", model.available());
        }
        prop_assert_eq!(model.sizes(), [replicas]);
    }
}
