//! Claims of generic ephemeral volumes: made for one pod, and gone with it.

use isopod_types::pod::Pod;
use isopod_types::storage::PersistentVolumeClaim;
use isopod_types::{Key, Object, OwnerReference};
use serde_json::{Value, json};

use crate::plan::{Plan, Target, Write};

/// Makes the claims of a pod's ephemeral volumes that do not exist; `exists` says which names are taken.
pub fn plan(pod: &Pod, exists: &dyn Fn(&Key) -> bool) -> Plan {
    let mut plan = Plan::nothing();
    if !pod.is_active() {
        return plan;
    }
    for volume in &pod.spec.volumes {
        let Some(template) = volume.other.get("ephemeral").map(|source| &source["volumeClaimTemplate"]) else {
            continue;
        };
        let key = Key::new(&*pod.metadata.namespace, format!("{}-{}", pod.metadata.name, volume.name));
        if exists(&key) {
            continue;
        }
        let object = claim(pod, &key, template);
        // One that somebody else made in the meantime is told apart by its owner.
        plan.push(Write::Create {
            target: Target::named::<PersistentVolumeClaim>(key),
            object,
            tolerate_existing: true,
        });
    }
    plan
}

fn claim(pod: &Pod, key: &Key, template: &Value) -> Value {
    let owner = OwnerReference::controller(&Pod::api_version(), Pod::KIND, pod.meta());
    let mut metadata = json!({"namespace": key.namespace, "name": key.name, "ownerReferences": [owner]});
    for field in ["labels", "annotations"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    json!({"apiVersion": "v1", "kind": PersistentVolumeClaim::KIND, "metadata": metadata, "spec": template["spec"]})
}
