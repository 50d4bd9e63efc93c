//! Which objects belong to an owner: those it controls and selects. It adopts what is free and releases what it no longer
//! selects. Never touches what somebody else controls.
//!
//! Source: the controller-reference rules that all of upstream's workload controllers share.

use isopod_types::workload::LabelSelector;
use isopod_types::{Object, ObjectMeta, OwnerReference};
use serde_json::json;

use crate::plan::{Plan, Target, Write};

/// An owner that looks for what belongs to it.
pub(crate) struct Claimer<'a> {
    meta: &'a ObjectMeta,
    reference: OwnerReference,
    selector: &'a LabelSelector,
}

impl<'a> Claimer<'a> {
    /// An owner with its selector.
    pub(crate) fn of<O: Object>(owner: &'a O, selector: &'a LabelSelector) -> Self {
        let meta = owner.meta();
        Self { meta, reference: OwnerReference::controller(&O::api_version(), O::KIND, meta), selector }
    }

    /// What belongs to the owner. Adopted objects count at once: a failed adoption stops what follows it in the plan.
    pub(crate) fn claim<'o, D: Object>(
        &self,
        objects: &[&'o D],
        may_adopt: impl Fn(&D) -> bool,
        plan: &mut Plan,
    ) -> Vec<&'o D> {
        let mut mine = Vec::new();
        for object in objects {
            let meta = object.meta();
            let matches = self.selector.matches(&meta.labels);
            match meta.controller() {
                Some(owner) if owner.uid == self.meta.uid && matches => mine.push(*object),
                Some(owner) if owner.uid == self.meta.uid => self.release(*object, plan),
                None if matches && !self.meta.is_deleting() && !meta.is_deleting() && may_adopt(object) => {
                    self.adopt(*object, plan);
                    mine.push(*object);
                }
                _ => {}
            }
        }
        mine
    }

    fn adopt<D: Object>(&self, object: &D, plan: &mut Plan) {
        let mut owners = object.meta().owner_references.clone();
        owners.push(self.reference.clone());
        own(object, &owners, plan);
    }

    fn release<D: Object>(&self, object: &D, plan: &mut Plan) {
        if self.meta.is_deleting() || object.meta().is_deleting() {
            return;
        }
        let owners = object.meta().owner_references.iter().filter(|owner| owner.uid != self.meta.uid);
        own(object, &owners.cloned().collect::<Vec<_>>(), plan);
    }
}

fn own<D: Object>(object: &D, owners: &[OwnerReference], plan: &mut Plan) {
    let patch = json!({"metadata": {"ownerReferences": owners}});
    plan.push(Write::Patch { target: Target::of::<D>(object.meta()), subresource: "", patch });
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::pod::Pod;
    use isopod_types::workload::ReplicaSet;

    /// `name app [<owner] [deleting]`.
    fn pod(text: &str) -> Pod {
        let words: Vec<&str> = text.split_whitespace().collect();
        let owner = words.iter().find_map(|word| word.strip_prefix('<'));
        let owners = owner.map(|uid| json!([{"uid": uid, "controller": true}])).unwrap_or(json!([]));
        let deleting = words.contains(&"deleting").then_some("1970-01-01T00:00:00Z");
        serde_json::from_value(json!({"metadata": {
            "name": words[0], "labels": {"app": words[1]}, "ownerReferences": owners, "deletionTimestamp": deleting,
        }}))
        .unwrap()
    }

    fn check(pods: &[&str], mine: &[&str], patched: &[&str]) {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "s", "uid": "s"}, "spec": {"selector": {"matchLabels": {"app": "a"}}},
        }))
        .unwrap();
        let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
        let mut plan = Plan::nothing();
        let claimer = Claimer::of(&set, &set.spec.selector);
        let found = claimer.claim(&pods.iter().collect::<Vec<_>>(), |_| true, &mut plan);
        assert_eq!(found.iter().map(|pod| pod.metadata.name.as_str()).collect::<Vec<_>>(), mine);
        let found: Vec<String> = plan
            .writes
            .iter()
            .map(|write| match write {
                Write::Patch { target, patch, .. } => {
                    format!("{} {}", target.key.name, patch["metadata"]["ownerReferences"].as_array().unwrap().len())
                }
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(found, patched);
    }

    #[test]
    fn an_owner_takes_what_is_free_and_lets_go_what_it_does_not_select() {
        check(&["p a <s"], &["p"], &[]);
        check(&["p a"], &["p"], &["p 1"]);
        check(&["p b <s"], &[], &["p 0"]);
        check(&["p a <other", "q b", "r a deleting"], &[], &[]);
        check(&["p b <s deleting"], &[], &[]);
    }
}
