//! A StatefulSet is played against a small model of a cluster: pods become ready, and go, one step after they are asked to.

use std::collections::BTreeMap;

use isopod_types::Key;
use isopod_types::pod::Pod;
use isopod_types::statefulset::{ControllerRevision, StatefulSet};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Claim, World, plan};
use crate::plan::{Plan, Write};

const PODS: &str = "Pod";
const CLAIMS: &str = "PersistentVolumeClaim";

struct Model {
    objects: BTreeMap<(String, String), Value>,
    set: Value,
    made: i64,
    second: i64,
    /// Pods of these images never become ready.
    broken: Vec<&'static str>,
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

impl Model {
    fn new(replicas: i64, more: Value) -> Self {
        let template =
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}});
        let mut set = json!({
            "metadata": {"name": "web", "namespace": "x", "uid": "set", "generation": 1},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template, "serviceName": "svc",
                "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            },
        });
        merge(&mut set["spec"], &more);
        Self { objects: BTreeMap::new(), set, made: 0, second: 0, broken: Vec::new() }
    }

    fn spec(&mut self, patch: Value) {
        merge(&mut self.set["spec"], &patch);
    }

    fn image(&mut self, image: &str) {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    }

    fn of<K: serde::de::DeserializeOwned>(&self, kind: &str) -> Vec<K> {
        self.objects.iter().filter(|((found, _), _)| found == kind).map(|(_, object)| parse(object)).collect()
    }

    fn plan(&self) -> Plan {
        let set: StatefulSet = parse(&self.set);
        let (pods, revisions, claims): (Vec<Pod>, Vec<ControllerRevision>, Vec<Claim>) =
            (self.of(PODS), self.of("ControllerRevision"), self.of(CLAIMS));
        plan(World {
            set: &set,
            pods: &pods.iter().collect::<Vec<_>>(),
            revisions: &revisions.iter().collect::<Vec<_>>(),
            claims: &claims.iter().collect::<Vec<_>>(),
            now: Timestamp::from_second(self.second).unwrap(),
        })
    }

    /// One decision, carried out; returns the number of writes.
    fn decide(&mut self) -> usize {
        let plan = self.plan();
        plan.writes.iter().for_each(|write| self.apply(write));
        plan.writes.len()
    }

    fn at(&mut self, kind: &str, key: &Key) -> Option<&mut Value> {
        if kind == "StatefulSet" {
            return Some(&mut self.set);
        }
        self.objects.get_mut(&(kind.to_owned(), key.name.clone()))
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create { target, object, .. } => {
                let key = (target.kind.to_owned(), target.key.name.clone());
                assert!(!self.objects.contains_key(&key), "{key:?} is there already");
                self.made += 1;
                let mut object = object.clone();
                object["metadata"]["uid"] = json!(format!("u{}", self.made));
                if target.kind == PODS {
                    object["status"]["phase"] = json!("Pending");
                }
                self.objects.insert(key, object);
            }
            Write::Patch { target, patch, .. } => merge(self.at(target.kind, &target.key).unwrap(), patch),
            Write::Delete { target, .. } if target.kind == PODS => {
                self.at(PODS, &target.key).unwrap()["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
            }
            Write::Delete { target, .. } => drop(self.objects.remove(&(target.kind.into(), target.key.name.clone()))),
            _ => {}
        }
    }

    /// Pods that end are gone with the claims they own, those that start become ready.
    fn run_pods(&mut self) {
        self.second += 1;
        let is_ending = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
        let gone: Vec<Value> =
            self.objects.values().filter(|pod| is_ending(pod)).map(|pod| pod["metadata"]["uid"].clone()).collect();
        let owned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| gone.contains(&owner["uid"])))
        };
        self.objects.retain(|_, object| !is_ending(object) && !owned(object));
        let (broken, now) = (self.broken.clone(), Timestamp::from_second(self.second).unwrap());
        for ((kind, _), pod) in &mut self.objects {
            let is_broken = broken.iter().any(|image| pod["spec"]["containers"][0]["image"] == **image);
            if kind == PODS && pod["status"]["phase"] == "Pending" && !is_broken {
                let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
                pod["status"] = json!({"phase": "Running", "conditions": ready});
            }
        }
    }

    /// `name:image`, with `!` when not ready.
    fn pods(&self) -> Vec<String> {
        let text = |pod: &Pod| {
            let mark = if pod.ready_since().is_some() { "" } else { "!" };
            format!("{}:{}{mark}", pod.metadata.name, pod.spec.containers[0].image)
        };
        self.of::<Pod>(PODS).iter().map(text).collect()
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            let writes = self.decide();
            self.run_pods();
            if writes == 0 && self.decide() == 0 {
                return;
            }
        }
        panic!("did not settle: {:?}", self.pods());
    }

    fn status(&self, field: &str) -> Value {
        self.set["status"][field].clone()
    }
}

#[test]
fn one_that_goes_makes_no_revisions() {
    let mut model = Model::new(1, json!({}));
    model.settle();
    model.objects.retain(|(kind, _), _| kind != "ControllerRevision");
    model.set["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    assert_eq!(model.decide(), 0);
}

#[test]
fn pods_come_one_by_one_with_their_identity() {
    let mut model = Model::new(3, json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}));
    model.decide();
    model.decide();
    assert_eq!(model.pods(), Vec::<String>::new(), "the claim comes before the pod");
    model.decide();
    assert_eq!(model.pods(), ["web-0:v1!"]);
    model.decide();
    assert_eq!(model.pods(), ["web-0:v1!"], "the second waits for the first");
    model.settle();
    assert_eq!(model.pods(), ["web-0:v1", "web-1:v1", "web-2:v1"]);
    let pod: Value = model.objects[&(PODS.to_owned(), "web-1".to_owned())].clone();
    for (path, expected) in [
        ("/metadata/labels/statefulset.kubernetes.io~1pod-name", "web-1"),
        ("/metadata/labels/apps.kubernetes.io~1pod-index", "1"),
        ("/spec/hostname", "web-1"),
        ("/spec/subdomain", "svc"),
        ("/spec/volumes/0/persistentVolumeClaim/claimName", "data-web-1"),
    ] {
        assert_eq!(pod.pointer(path).unwrap(), expected);
    }
    for field in ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"] {
        assert_eq!(model.status(field), 3, "{field}");
    }
    assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], model.status("updateRevision"));
}

#[test]
fn parallel_sets_do_not_wait() {
    let mut model = Model::new(3, json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    model.decide();
    model.decide();
    assert_eq!(model.pods(), ["web-5:v1!", "web-6:v1!", "web-7:v1!"]);
    model.settle();
    model.spec(json!({"replicas": 0}));
    model.decide();
    model.run_pods();
    assert!(model.pods().is_empty());
}

#[test]
fn scaling_halts_while_a_lower_pod_is_unhealthy() {
    let mut model = Model::new(3, json!({}));
    model.settle();
    model.objects.get_mut(&(PODS.to_owned(), "web-0".to_owned())).unwrap()["status"]["conditions"] = json!([]);
    for replicas in [5, 1] {
        model.spec(json!({"replicas": replicas}));
        model.decide();
        model.run_pods();
        model.decide();
        assert_eq!(model.pods(), ["web-0:v1!", "web-1:v1", "web-2:v1"], "{replicas}");
    }
}

#[test]
fn pods_that_ended_are_made_again() {
    for phase in ["Failed", "Succeeded"] {
        let mut model = Model::new(2, json!({}));
        model.settle();
        let before: Pod = parse(&model.objects[&(PODS.to_owned(), "web-1".to_owned())]);
        model.objects.get_mut(&(PODS.to_owned(), "web-1".to_owned())).unwrap()["status"] = json!({"phase": phase});
        model.settle();
        let after: Pod = parse(&model.objects[&(PODS.to_owned(), "web-1".to_owned())]);
        assert_ne!(before.metadata.uid, after.metadata.uid);
        assert_eq!(model.pods(), ["web-0:v1", "web-1:v1"]);
    }
}

#[test]
fn an_update_stops_at_the_partition_and_can_be_undone() {
    let mut model = Model::new(4, json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}));
    model.settle();
    model.image("v2");
    model.settle();
    assert_eq!(model.pods(), ["web-0:v1", "web-1:v1", "web-2:v2", "web-3:v2"]);
    assert_ne!(model.status("currentRevision"), model.status("updateRevision"));
    let old = model.status("currentRevision");
    model.objects.remove(&(PODS.to_owned(), "web-0".to_owned()));
    model.settle();
    assert_eq!(model.pods()[0], "web-0:v1", "below the partition a lost pod comes back as it was");
    model.image("v1");
    model.settle();
    assert_eq!(model.pods(), ["web-0:v1", "web-1:v1", "web-2:v1", "web-3:v1"]);
    assert_eq!((model.status("updateRevision"), model.status("currentRevision")), (old.clone(), old.clone()));
    let revisions: Vec<ControllerRevision> = model.of("ControllerRevision");
    let newest = revisions.iter().max_by_key(|revision| revision.revision).unwrap();
    assert_eq!((newest.metadata.name.as_str(), newest.revision), (old.as_str().unwrap(), 3));
}

#[test]
fn on_delete_leaves_replacing_to_the_user() {
    let mut model = Model::new(2, json!({"updateStrategy": {"type": "OnDelete"}}));
    model.settle();
    model.image("v2");
    model.settle();
    assert_eq!(model.pods(), ["web-0:v1", "web-1:v1"]);
    model.objects.remove(&(PODS.to_owned(), "web-0".to_owned()));
    model.settle();
    assert_eq!(model.pods(), ["web-0:v2", "web-1:v1"]);
}

#[test]
fn a_broken_template_stops_after_the_first_pod() {
    let mut model = Model::new(3, json!({}));
    model.settle();
    model.image("bad");
    model.broken = vec!["bad"];
    for _ in 0..20 {
        model.decide();
        model.run_pods();
    }
    assert_eq!(model.pods(), ["web-0:v1", "web-1:v1", "web-2:bad!"]);
}

#[test]
fn claims_follow_the_retention_policy() {
    let claims =
        |model: &Model| model.of::<Claim>(CLAIMS).iter().map(|claim| claim.metadata.name.clone()).collect::<Vec<_>>();
    for (scaled, left) in [("Retain", vec!["data-web-0", "data-web-1"]), ("Delete", vec!["data-web-0"])] {
        let policy = json!({"whenDeleted": "Delete", "whenScaled": scaled});
        let templates = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        let mut model =
            Model::new(2, json!({"volumeClaimTemplates": templates, "persistentVolumeClaimRetentionPolicy": policy}));
        model.settle();
        let owner = &model.of::<Claim>(CLAIMS)[0].metadata.owner_references[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("StatefulSet", true));
        model.spec(json!({"replicas": 1}));
        model.settle();
        assert_eq!(claims(&model), left);
        model.spec(json!({"replicas": 2}));
        model.settle();
        assert_eq!(claims(&model), ["data-web-0", "data-web-1"]);
    }
}

#[test]
fn history_has_a_limit_and_a_taken_name_counts_as_a_collision() {
    let mut model = Model::new(1, json!({"revisionHistoryLimit": 1}));
    for image in ["v1", "v2", "v3", "v4"] {
        model.image(image);
        model.settle();
    }
    assert_eq!(model.of::<ControllerRevision>("ControllerRevision").len(), 2);
    model.image("v5");
    let name = super::revision_name(&parse(&model.set));
    let owners = json!([{"uid": "other", "controller": true}]);
    let stranger = json!({"metadata": {"name": name, "uid": "s", "ownerReferences": owners}, "revision": 1});
    model.objects.insert(("ControllerRevision".into(), name.clone()), stranger);
    model.settle();
    assert_eq!(model.status("collisionCount"), 1);
    assert_ne!(model.status("updateRevision"), json!(name));
    assert_eq!(model.pods(), ["web-0:v5"]);
}

proptest! {
    /// Whatever is asked for in the middle of what: no ordinal has two pods (the model refuses that), a rolling update leaves
    /// no more pods missing than it may, and in the end all is as wanted.
    #[test]
    fn updates_and_scaling_keep_their_bounds(
        first in 0..6i64, second in 0..6i64, partition in 0..4i64, most in 1..4i64, parallel: bool, steps in 0..12usize, switch in 0..12usize,
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let strategy = json!({"rollingUpdate": {"partition": partition, "maxUnavailable": most}});
        let mut model = Model::new(first, json!({"podManagementPolicy": policy, "updateStrategy": strategy}));
        model.settle();
        model.image("v2");
        for step in 0..steps {
            if step == switch {
                model.spec(json!({"replicas": second}));
            }
            model.decide();
            let ready = model.of::<Pod>(PODS).iter().filter(|pod| super::is_healthy(pod)).count();
            let least = first.min(if step >= switch { second } else { first }) - most;
            prop_assert!(i64::try_from(ready).unwrap() >= least, "{ready} of {first}, {second}: {:?}", model.pods());
            model.run_pods();
        }
        model.spec(json!({"replicas": second, "updateStrategy": {"rollingUpdate": {"partition": 0}}}));
        model.settle();
        let expected: Vec<String> = (0..second).map(|ordinal| format!("web-{ordinal}:v2")).collect();
        prop_assert_eq!(model.pods(), expected);
        prop_assert_eq!(model.status("currentRevision"), model.status("updateRevision"));
    }
}
