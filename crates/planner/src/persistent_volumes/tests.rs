//! Claims and volumes against a small model of the API; plans are cut off anywhere, as crashes do.

use std::collections::BTreeMap;

use isopod_types::Key;
use isopod_types::own::Host;
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim, StorageClass};
use jiff::Timestamp;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::claims::{self, Users, World};
use super::{ephemeral, volumes};
use crate::plan::{Plan, Write};

const CLAIM: &str = "PersistentVolumeClaim";
const VOLUME: &str = "PersistentVolume";

#[derive(Default)]
struct Model {
    objects: BTreeMap<(String, String), Value>,
    events: Vec<String>,
    users: BTreeMap<String, bool>,
    revision: u64,
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(key)),
            value => merge(&mut into[key], value),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

impl Model {
    fn with(objects: &[Value]) -> Self {
        let mut model = Self::default();
        objects.iter().for_each(|object| model.put(object.clone()));
        model
    }

    fn put(&mut self, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
        }
        let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        if object["metadata"]["deletionTimestamp"].is_string() && finalizers == 0 {
            self.objects.remove(&(kind, name));
            return;
        }
        self.objects.insert((kind, name), object);
    }

    fn delete(&mut self, kind: &str, name: &str) {
        let mut object = self.get(kind, name).clone();
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.put(object);
    }

    fn get(&self, kind: &str, name: &str) -> &Value {
        self.objects.get(&(kind.to_owned(), name.to_owned())).unwrap_or(&Value::Null)
    }

    fn all<K: DeserializeOwned>(&self, kind: &str) -> BTreeMap<Key, K> {
        let of_kind = self.objects.iter().filter(|((found, _), _)| found == kind);
        let key = |object: &Value| {
            Key::new(
                object["metadata"]["namespace"].as_str().unwrap_or(""),
                object["metadata"]["name"].as_str().unwrap(),
            )
        };
        of_kind.map(|(_, object)| (key(object), serde_json::from_value(object.clone()).unwrap())).collect()
    }

    fn plans(&self) -> Vec<Plan> {
        let volumes: BTreeMap<Key, PersistentVolume> = self.all(VOLUME);
        let claims: BTreeMap<Key, PersistentVolumeClaim> = self.all(CLAIM);
        let classes: BTreeMap<Key, StorageClass> = self.all("StorageClass");
        let (nodes, hosts) = (self.all("Node"), self.all::<Host>("Host"));
        let world = World { volumes: &volumes, classes: &classes, nodes: &nodes, hosts: &hosts };
        let mut plans = Vec::new();
        for claim in claims.values() {
            let in_use = self.users.get(&claim.metadata.name).copied().unwrap_or(false);
            plans.push(claims::plan(claim, Users { in_use, waiting: None }, world, Timestamp::UNIX_EPOCH));
        }
        for volume in volumes.values() {
            let reference = volume.spec.claim_ref.as_ref();
            let claim = reference.and_then(|r| claims.get(&Key::new(&*r.namespace, &*r.name)));
            plans.push(volumes::plan(volume, claim, &|host| hosts.contains_key(&Key::cluster(host)), now()));
        }
        plans
    }

    fn apply(&mut self, write: &Write) -> bool {
        match write {
            Write::Event { reason, .. } => self.events.push(format!("{}: {}", reason.reason, reason.message)),
            Write::Create { object, target, .. } => {
                if self.get(target.kind, &target.key.name).is_null() {
                    self.put(object.clone());
                }
            }
            Write::Delete { target, .. } => self.delete(target.kind, &target.key.name),
            Write::Patch { target, patch, .. } => {
                let mut object = self.get(target.kind, &target.key.name).clone();
                let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                if object.is_null() || !(target.resource_version.is_empty() || target.resource_version == revision) {
                    return false;
                }
                merge(&mut object, patch);
                self.put(object);
            }
            other => panic!("not about volumes: {other:?}"),
        }
        true
    }

    /// Carries out plans until none wants anything; of the first plans only so many writes, as if crashes fell there.
    fn settle(&mut self, crashes: &[usize]) -> &mut Self {
        let mut crashes = crashes.iter();
        for _ in 0..60 {
            let plans = self.plans();
            let quiet = plans.iter().all(|plan| plan.writes.iter().all(|write| matches!(write, Write::Event { .. })));
            for plan in plans {
                let allowed = crashes.next().copied().unwrap_or(usize::MAX);
                for write in plan.writes.iter().take(allowed) {
                    if !self.apply(write) {
                        break;
                    }
                }
            }
            if quiet {
                return self;
            }
        }
        panic!("never quiet: {:#?}", self.plans());
    }

    fn phase(&self, kind: &str, name: &str) -> &str {
        self.get(kind, name)["status"]["phase"].as_str().unwrap_or("gone")
    }
}

fn claim(name: &str, more: Value) -> Value {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}, "storageClassName": ""});
    let mut claim = json!({"kind": CLAIM, "metadata": {"name": name, "namespace": "x"}, "spec": spec, "status": {"phase": "Pending"}});
    merge(&mut claim, &more);
    claim
}

fn volume(name: &str, size: &str, more: Value) -> Value {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/v"}});
    let mut volume = json!({"kind": VOLUME, "metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}});
    merge(&mut volume, &more);
    volume
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})
}

fn host(name: &str) -> Value {
    json!({"kind": "Host", "metadata": {"name": name}})
}

fn node(name: &str, host: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name, "labels": {"isopod.dev/host": host}}})
}

fn of_class(class: &str) -> Value {
    json!({"spec": {"storageClassName": class}})
}

#[test]
fn the_smallest_volume_that_does_is_taken() {
    for (wish, expected) in [
        (json!({}), "v10"),
        (json!({"spec": {"resources": {"requests": {"storage": "15Gi"}}}}), "v20"),
        (json!({"spec": {"resources": {"requests": {"storage": "50Gi"}}}}), ""),
        (json!({"spec": {"accessModes": ["ReadWriteMany"]}}), ""),
        (json!({"spec": {"selector": {"matchLabels": {"disk": "fast"}}}}), "v30"),
        (json!({"spec": {"volumeMode": "Block"}}), "block"),
        (json!({"spec": {"volumeName": "v20"}}), "v20"),
        (of_class("other"), "other"),
    ] {
        let mut model = Model::with(&[
            claim("c", wish.clone()),
            volume("v20", "20Gi", json!({})),
            volume("v10", "10Gi", json!({})),
            volume("v2", "2Gi", json!({})),
            volume("v30", "30Gi", json!({"metadata": {"labels": {"disk": "fast"}}})),
            volume("block", "9Gi", json!({"spec": {"volumeMode": "Block"}})),
            volume("other", "9Gi", of_class("other")),
            class("other", super::NO_PROVISIONER, "Immediate"),
        ]);
        model.settle(&[]);
        assert_eq!(model.get(CLAIM, "c")["spec"]["volumeName"].as_str().unwrap_or(""), expected, "{wish}");
        let phase = if expected.is_empty() { "Pending" } else { "Bound" };
        assert_eq!(model.phase(CLAIM, "c"), phase, "{wish}");
        if !expected.is_empty() {
            assert_eq!(model.phase(VOLUME, expected), "Bound", "{wish}");
            assert_eq!(model.get(CLAIM, "c")["status"]["capacity"], model.get(VOLUME, expected)["spec"]["capacity"]);
        }
    }
}

#[test]
fn what_keeps_a_claim_waiting_is_said() {
    let bound =
        json!({"spec": {"claimRef": {"namespace": "x", "name": "other", "uid": "o"}}, "status": {"phase": "Bound"}});
    for (wish, expected) in [
        (json!({}), "FailedBinding: no persistent volumes available for this claim and no storage class is set"),
        (of_class("wait"), "WaitForFirstConsumer: waiting for first consumer to be created before binding"),
        (of_class("none"), "ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found"),
        (
            of_class("hand"),
            "FailedBinding: no persistent volumes available for this claim and storage class \"hand\" makes none",
        ),
        (
            of_class("theirs"),
            "ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'example.com/p'",
        ),
        (
            json!({"spec": {"volumeName": "small"}}),
            "VolumeMismatch: Cannot bind to requested volume \"small\": requested PV is too small",
        ),
        (
            json!({"spec": {"volumeName": "taken"}}),
            "FailedBinding: volume \"taken\" already bound to a different claim.",
        ),
        (
            json!({"spec": {"storageClassName": "disk", "accessModes": ["ReadWriteMany"]}}),
            "ProvisioningFailed: failed to provision volume with StorageClass \"disk\": access mode ReadWriteMany is not supported",
        ),
    ] {
        let mut model = Model::with(&[
            claim("c", wish.clone()),
            class("wait", "ebs.csi.aws.com", "WaitForFirstConsumer"),
            class("hand", super::NO_PROVISIONER, "Immediate"),
            class("theirs", "example.com/p", "Immediate"),
            class("disk", "isopod.dev/disk", "Immediate"),
            volume("small", "1Gi", json!({})),
            volume("taken", "9Gi", bound.clone()),
            host("h1"),
        ]);
        model.settle(&[]);
        assert!(model.events.iter().any(|event| event.starts_with(expected)), "{wish}: {:?}", model.events);
        assert_eq!(model.phase(CLAIM, "c"), "Pending");
    }
}

#[test]
fn disks_are_made_on_a_host_and_go_with_their_claims() {
    let mut model = Model::with(&[
        host("h1"),
        host("h2"),
        node("n2", "h2"),
        class("gp3", "ebs.csi.aws.com", "WaitForFirstConsumer"),
        class("now", "kubernetes.io/aws-ebs", "Immediate"),
        claim("late", of_class("gp3")),
        claim("early", of_class("now")),
    ]);
    model.settle(&[]);
    assert_eq!((model.phase(CLAIM, "late"), model.phase(CLAIM, "early")), ("Pending", "Bound"));
    let early = model.get(VOLUME, "pvc-uid-early");
    assert_eq!(early["spec"]["csi"]["volumeAttributes"]["isopod.dev/host"], "h2", "where worker nodes are: {early}");
    let mut late = model.get(CLAIM, "late").clone();
    late["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "n2"});
    model.put(late);
    model.settle(&[]);
    let made = model.get(VOLUME, "pvc-uid-late").clone();
    let at = &made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!((model.phase(CLAIM, "late"), &at["values"]), ("Bound", &json!(["h2"])));
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection", "isopod.dev/disk"]));
    assert!(made["spec"]["csi"]["volumeHandle"].as_str().unwrap().starts_with("vol-0"));
    assert_eq!(made["spec"]["capacity"]["storage"], "5Gi");
    model.users.insert("late".into(), true);
    model.delete(CLAIM, "late");
    model.settle(&[]);
    assert_eq!(model.phase(CLAIM, "late"), "Bound", "kept while a pod uses it");
    model.users.clear();
    model.settle(&[]);
    assert_eq!((model.phase(CLAIM, "late"), model.phase(VOLUME, "pvc-uid-late")), ("gone", "Released"));
    assert_eq!(model.get(VOLUME, "pvc-uid-late")["metadata"]["finalizers"], json!(["isopod.dev/disk"]), "the host's");
    model.objects.remove(&("Host".into(), "h2".into()));
    model.settle(&[]);
    assert_eq!(model.phase(VOLUME, "pvc-uid-late"), "gone", "nobody will remove the file any more");
}

#[test]
fn a_node_that_cannot_have_the_disk_is_given_up() {
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}, "spec": {"storageClassName": "gp3"}});
    let stranger = json!({"kind": "Node", "metadata": {"name": "n1"}});
    let mut model = Model::with(&[
        host("h1"),
        stranger,
        class("gp3", "ebs.csi.aws.com", "WaitForFirstConsumer"),
        claim("c", selected),
    ]);
    model.settle(&[]);
    assert!(model.get(CLAIM, "c")["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].is_null());
    assert!(
        model.events.iter().any(|event| event.contains("is not run by a host of this cluster")),
        "{:?}",
        model.events
    );
}

#[test]
fn policies_decide_about_volumes_that_were_left() {
    for (policy, expected) in [("Retain", "Released"), ("Delete", "Failed"), ("Recycle", "Failed")] {
        let mut model = Model::with(&[
            claim("c", json!({})),
            volume("v", "9Gi", json!({"spec": {"persistentVolumeReclaimPolicy": policy}})),
        ]);
        model.settle(&[]);
        assert_eq!(model.phase(VOLUME, "v"), "Bound");
        model.delete(CLAIM, "c");
        model.settle(&[]);
        assert_eq!((model.phase(CLAIM, "c"), model.phase(VOLUME, "v")), ("gone", expected), "{policy}");
        model.put(claim("c", json!({"metadata": {"uid": "another"}})));
        model.settle(&[]);
        assert_eq!(
            (model.phase(CLAIM, "c"), model.phase(VOLUME, "v")),
            ("Pending", expected),
            "not for the next of that name"
        );
    }
}

#[test]
fn a_volume_that_is_deleted_while_bound_waits_for_its_claim() {
    let mut model = Model::with(&[claim("c", json!({})), volume("v", "9Gi", json!({}))]);
    model.settle(&[]);
    model.delete(VOLUME, "v");
    model.settle(&[]);
    assert_eq!((model.phase(CLAIM, "c"), model.phase(VOLUME, "v")), ("Bound", "Bound"));
    model.delete(CLAIM, "c");
    model.settle(&[]);
    assert_eq!((model.phase(CLAIM, "c"), model.phase(VOLUME, "v")), ("gone", "gone"));
}

#[test]
fn lost_volumes_and_default_classes() {
    let mut model = Model::with(&[claim("c", json!({})), volume("v", "9Gi", json!({}))]);
    model.settle(&[]);
    model.objects.remove(&(VOLUME.into(), "v".into()));
    model.settle(&[]);
    assert_eq!(model.phase(CLAIM, "c"), "Lost");
    assert!(model.events.iter().any(|event| event.starts_with("ClaimLost")));
    let mut default = class("std", "isopod.dev/disk", "Immediate");
    default["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let mut model = Model::with(&[claim("c", json!({"spec": {"storageClassName": null}})), default, host("h1")]);
    model.settle(&[]);
    assert_eq!((&model.get(CLAIM, "c")["spec"]["storageClassName"], model.phase(CLAIM, "c")), (&json!("std"), "Bound"));
}

#[test]
fn ephemeral_volumes_get_claims_of_their_own() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "gp3"}});
    let volumes = json!([{"name": "d", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "e", "emptyDir": {}}]);
    let pod = json!({"metadata": {"name": "p", "namespace": "x", "uid": "u"}, "spec": {"volumes": volumes}});
    let pod = serde_json::from_value(pod).unwrap();
    let plan = ephemeral::plan(&pod, &|_| false);
    let [Write::Create { target, object, .. }] = &plan.writes[..] else { panic!("{plan:?}") };
    assert_eq!((target.key.to_string().as_str(), &object["metadata"]["labels"]["a"]), ("x/p-d", &json!("b")));
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
    assert_eq!(ephemeral::plan(&pod, &|_| true), Plan::nothing());
}

proptest! {
    /// Wherever crashes fall, every claim that can have a volume ends up bound to one, and no volume to two.
    #[test]
    fn crashes_tear_nothing_apart(crashes in proptest::collection::vec(0..3usize, 0..40), sizes in proptest::collection::vec(1..4i64, 1..4)) {
        let mut objects = vec![host("h1"), class("gp3", "ebs.csi.aws.com", "Immediate")];
        for (i, size) in sizes.iter().enumerate() {
            objects.push(volume(&format!("v{i}"), &format!("{size}Gi"), json!({})));
            objects.push(claim(&format!("c{i}"), json!({"spec": {"resources": {"requests": {"storage": format!("{size}Gi")}}}})));
            objects.push(claim(&format!("d{i}"), of_class("gp3")));
        }
        let mut model = Model::with(&objects);
        model.settle(&crashes);
        let claims: BTreeMap<Key, PersistentVolumeClaim> = model.all(CLAIM);
        let volumes: BTreeMap<Key, PersistentVolume> = model.all(VOLUME);
        let bound: Vec<&PersistentVolumeClaim> = claims.values().filter(|claim| claim.status.phase == "Bound").collect();
        prop_assert!(bound.iter().filter(|claim| claim.class() == "gp3").count() == sizes.len());
        prop_assert!(bound.len() > sizes.len(), "some volume does for some claim");
        let mut names: Vec<&str> = bound.iter().map(|claim| claim.spec.volume_name.as_str()).collect();
        for claim in &bound {
            let volume = &volumes[&Key::cluster(&*claim.spec.volume_name)];
            prop_assert_eq!(&volume.spec.claim_ref.as_ref().unwrap().uid, &claim.metadata.uid);
            prop_assert_eq!(&volume.status.phase, "Bound");
        }
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), bound.len());
    }
}
