//! The revisions of a template: one ControllerRevision for each, numbered, so that a rollout can be undone.
//!
//! Source: how upstream's StatefulSet and DaemonSet controllers keep history. A template that comes back reuses its
//! revision, which becomes the newest.

use std::collections::BTreeMap;

use isopod_types::statefulset::ControllerRevision;
use isopod_types::{Key, Object, OwnerReference};
use serde_json::{Value, json};

use crate::plan::{Plan, Target, Write};
use crate::template;

/// Old revisions kept when the owner does not say.
const LIMIT: i64 = 10;
/// Label with the hash of a revision.
pub(crate) const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Label that ties a pod to the revision it was made from.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";

/// Which revision the owner's template is.
pub(crate) enum Newest<'a> {
    /// This one; it is the newest, or becomes so by a write in the plan.
    Known(&'a ControllerRevision),
    /// None yet: the plan makes it; an owner that is on its way out gets none.
    Made,
    /// Its name is taken by another: the owner must count a collision.
    Collision,
}

/// The revisions of one owner.
pub(crate) struct History<'a> {
    /// Those that belong to it, oldest first.
    all: Vec<&'a ControllerRevision>,
}

/// What a revision keeps of a template. Clients find the revision of a template by comparing the text, in which Go has sorted
/// the names of fields.
fn data(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = json!("replace");
    let mut data = json!({"spec": {"template": template}});
    data.sort_all_objects();
    data
}

/// The template a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Value {
    let mut template = revision.data["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    template
}

/// The name of the revision that a template would get.
pub(crate) fn name(owner: &str, template: &Value, collisions: i64) -> String {
    format!("{owner}-{}", template::hash(template, collisions))
}

impl<'a> History<'a> {
    /// The history that these revisions are.
    pub(crate) fn of(mut owned: Vec<&'a ControllerRevision>) -> Self {
        owned
            .sort_by_key(|revision| (revision.revision, revision.metadata.creation_timestamp, &revision.metadata.name));
        Self { all: owned }
    }

    /// The revision with this name.
    pub(crate) fn named(&self, name: &str) -> Option<&'a ControllerRevision> {
        self.all.iter().copied().find(|revision| revision.metadata.name == name)
    }

    /// Finds or makes the revision of the owner's template. `taken` says whether a name belongs to somebody else.
    pub(crate) fn newest<O: Object>(
        &self,
        owner: &O,
        template: &Value,
        collisions: i64,
        taken: impl Fn(&str) -> bool,
        plan: &mut Plan,
    ) -> Newest<'a> {
        let highest = self.all.last().map_or(0, |revision| revision.revision);
        let same = |revision: &&&ControllerRevision| template::equal(&template_of(revision), template);
        if let Some(known) = self.all.iter().rev().find(same) {
            if known.revision < highest {
                let target = Target::of::<ControllerRevision>(&known.metadata);
                plan.push(Write::Patch { target, subresource: "", patch: json!({"revision": highest + 1}) });
            }
            return Newest::Known(known);
        }
        if owner.meta().is_deleting() {
            // Whoever collects what belonged to it would take it away again, and again.
            return Newest::Made;
        }
        let name = name(&owner.meta().name, template, collisions);
        if taken(&name) || self.named(&name).is_some() {
            return Newest::Collision;
        }
        plan.push(create(owner, template, &name, highest + 1));
        Newest::Made
    }

    /// Removes the oldest revisions beyond the limit that no pod and no status names.
    pub(crate) fn clean_up(&self, live: impl Fn(&ControllerRevision) -> bool, limit: Option<i64>, plan: &mut Plan) {
        let limit = usize::try_from(limit.unwrap_or(LIMIT)).unwrap_or(0);
        let old: Vec<_> = self.all.iter().filter(|revision| !live(revision)).collect();
        for revision in old.iter().take(old.len().saturating_sub(limit)) {
            let target = Target::of::<ControllerRevision>(&revision.metadata);
            plan.push(Write::Delete { target, propagation: None, grace_period_seconds: None });
        }
    }
}

fn create<O: Object>(owner: &O, template: &Value, name: &str, number: i64) -> Write {
    let meta = owner.meta();
    let hash = name.strip_prefix(&format!("{}-", meta.name)).unwrap_or(name);
    let mut labels: BTreeMap<String, Value> = BTreeMap::new();
    for (key, value) in template["metadata"]["labels"].as_object().into_iter().flatten() {
        labels.insert(key.clone(), value.clone());
    }
    for label in [HASH_LABEL, CONTROLLER_REVISION_HASH] {
        labels.insert(label.into(), json!(hash));
    }
    let reference = OwnerReference::controller(&O::api_version(), O::KIND, meta);
    let object = json!({
        "apiVersion": ControllerRevision::api_version(), "kind": ControllerRevision::KIND,
        "metadata": {
            "name": name, "namespace": meta.namespace, "labels": labels,
            "annotations": meta.annotations, "ownerReferences": [reference],
        },
        "data": data(template), "revision": number,
    });
    let target = Target::named::<ControllerRevision>(Key::new(&*meta.namespace, name));
    Write::Create { target, object, tolerate_existing: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_keeps_the_text_that_clients_compare() {
        let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}, "metadata": {"labels": {"b": "1", "a": "2"}}});
        let text = r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"a":"2","b":"1"}},"spec":{"containers":[{"image":"i","name":"c"}]}}}}"#;
        assert_eq!(data(&template).to_string(), text);
    }
}
