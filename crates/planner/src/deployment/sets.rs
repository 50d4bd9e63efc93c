//! The ReplicaSets of a Deployment: finding, making, refreshing, removing.

use std::collections::BTreeMap;

use isopod_types::names::{
    DESIRED_REPLICAS_ANNOTATION, LAST_APPLIED_ANNOTATION, MAX_REPLICAS_ANNOTATION, POD_TEMPLATE_HASH,
    REVISION_ANNOTATION, REVISION_HISTORY_ANNOTATION,
};
use isopod_types::workload::{Deployment, ReplicaSet};
use isopod_types::{Key, Object, OwnerReference};
use serde_json::{Value, json};

use super::{COMPONENT, View, rolling};
use crate::plan::{Plan, Reason, Target, Write};
use crate::template;

/// Longest history of revisions, as upstream has it.
const HISTORY_BYTES: usize = 2000;

/// Whether a set is of the Deployment's current template.
pub(super) fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let mut of_set = set.spec.template.clone();
    if let Some(labels) = of_set["metadata"]["labels"].as_object_mut() {
        labels.remove(POD_TEMPLATE_HASH);
    }
    template::equal(&of_set, &deployment.spec.template)
}

/// The name of the set that the Deployment's template gets.
pub fn new_set_name(deployment: &Deployment) -> String {
    format!("{}-{}", deployment.metadata.name, new_hash(deployment))
}

fn new_hash(deployment: &Deployment) -> String {
    template::hash(&deployment.spec.template, deployment.status.collision_count.unwrap_or(0))
}

/// Whether a set of another template or another owner has the name that the template's set would get.
pub(super) fn is_taken(deployment: &Deployment, sets: &[&ReplicaSet]) -> bool {
    let name = new_set_name(deployment);
    sets.iter().any(|set| set.metadata.name == name)
}

pub(super) fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION_ANNOTATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Annotations a set takes over from its Deployment.
fn copied_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let skipped = [
        LAST_APPLIED_ANNOTATION,
        REVISION_ANNOTATION,
        REVISION_HISTORY_ANNOTATION,
        DESIRED_REPLICAS_ANNOTATION,
        MAX_REPLICAS_ANNOTATION,
    ];
    let all = deployment.metadata.annotations.iter();
    all.filter(|(key, _)| !skipped.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The annotations by which a later scaling can be told from a rollout.
pub(super) fn size_annotations(view: &View<'_>) -> BTreeMap<String, String> {
    let replicas = view.deployment.spec.replicas;
    let max = if replicas > 0 { replicas + view.bounds().surge } else { 0 };
    [(DESIRED_REPLICAS_ANNOTATION, replicas), (MAX_REPLICAS_ANNOTATION, max)]
        .map(|(k, v)| (k.to_owned(), v.to_string()))
        .into()
}

/// Makes the set of the current template.
pub(super) fn create(view: &View<'_>, plan: &mut Plan) {
    let deployment = view.deployment;
    let hash = new_hash(deployment);
    let name = new_set_name(deployment);
    let next = view.old.iter().map(|set| revision(&set.metadata.annotations)).max().unwrap_or(0) + 1;
    let mut annotations = copied_annotations(deployment);
    annotations.extend(size_annotations(view));
    annotations.insert(REVISION_ANNOTATION.into(), next.to_string());
    let replicas = rolling::new_set_size(view, 0);
    let object = set_object(deployment, &name, &hash, &annotations, replicas);
    let target = Target::named::<ReplicaSet>(Key::new(&*deployment.metadata.namespace, &*name));
    plan.push(Write::Create { target, object, tolerate_existing: true });
    set_revision(view, next, plan);
    if replicas > 0 {
        announce(view, &name, 0, replicas, plan);
    }
}

fn set_object(
    deployment: &Deployment,
    name: &str,
    hash: &str,
    annotations: &BTreeMap<String, String>,
    replicas: i64,
) -> Value {
    let mut template = deployment.spec.template.clone();
    template["metadata"]["labels"][POD_TEMPLATE_HASH] = json!(hash);
    let mut selector = deployment.spec.selector.clone();
    selector.match_labels.insert(POD_TEMPLATE_HASH.into(), hash.into());
    let owner = OwnerReference::controller(&Deployment::api_version(), Deployment::KIND, &deployment.metadata);
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": deployment.metadata.namespace, "ownerReferences": [owner],
            "labels": template["metadata"]["labels"], "annotations": annotations,
        },
        "spec": {
            "replicas": replicas, "selector": selector, "template": template, "minReadySeconds": deployment.spec.min_ready_seconds,
        },
    })
}

/// Writes the revision of the rollout on the Deployment.
fn set_revision(view: &View<'_>, revision_number: i64, plan: &mut Plan) {
    if revision(&view.deployment.metadata.annotations) != revision_number {
        let target = Target { resource_version: String::new(), ..Target::of::<Deployment>(&view.deployment.metadata) };
        let patch = json!({"metadata": {"annotations": {REVISION_ANNOTATION: revision_number.to_string()}}});
        plan.push(Write::Patch { target, subresource: "", patch });
    }
}

/// Gives the current set the highest revision: a rollback reuses an old set.
pub(super) fn refresh(view: &View<'_>, new: &ReplicaSet, plan: &mut Plan) {
    let highest = view.old.iter().map(|set| revision(&set.metadata.annotations)).max().unwrap_or(0);
    let mine = revision(&new.metadata.annotations);
    let wanted = if mine > highest { mine } else { highest + 1 };
    let mut annotations = copied_annotations(view.deployment);
    annotations.insert(REVISION_ANNOTATION.into(), wanted.to_string());
    if wanted > mine && new.metadata.annotations.contains_key(REVISION_ANNOTATION) {
        let history = new.metadata.annotations.get(REVISION_HISTORY_ANNOTATION).map_or("", String::as_str);
        annotations.insert(REVISION_HISTORY_ANNOTATION.into(), remembered(history, mine));
    }
    let seconds = view.deployment.spec.min_ready_seconds;
    let stale = annotations.iter().any(|(key, value)| new.metadata.annotations.get(key) != Some(value));
    if stale || new.spec.min_ready_seconds != seconds {
        let target = Target { resource_version: String::new(), ..Target::of::<ReplicaSet>(&new.metadata) };
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": seconds}});
        plan.push(Write::Patch { target, subresource: "", patch });
    }
    set_revision(view, wanted, plan);
}

/// A history of revisions with one more; the oldest are forgotten for it.
fn remembered(history: &str, revision: i64) -> String {
    let mut revisions: Vec<String> =
        history.split(',').filter(|text| !text.is_empty()).map(str::to_owned).chain([revision.to_string()]).collect();
    let length = |all: &[String]| all.iter().map(|text| text.len() + 1).sum::<usize>() - 1;
    while revisions.len() > 1 && length(&revisions) > HISTORY_BYTES {
        revisions.remove(0);
    }
    revisions.join(",")
}

fn announce(view: &View<'_>, set: &str, from: i64, to: i64, plan: &mut Plan) {
    let word = if to > from { "up" } else { "down" };
    let text = format!("Scaled {word} replica set {set} from {from} to {to}");
    plan.event(
        &Target::of::<Deployment>(&view.deployment.metadata),
        COMPONENT,
        Reason::normal("ScalingReplicaSet", text),
    );
}

/// Sets a ReplicaSet's size and the annotations that go with it.
pub(super) fn resize(view: &View<'_>, set: &ReplicaSet, replicas: i64, plan: &mut Plan) {
    let annotations = size_annotations(view);
    let current = annotations.iter().all(|(key, value)| set.metadata.annotations.get(key) == Some(value));
    if set.spec.replicas == replicas && current {
        return;
    }
    let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}});
    let target = Target { resource_version: String::new(), ..Target::of::<ReplicaSet>(&set.metadata) };
    plan.push(Write::Patch { target, subresource: "", patch });
    if set.spec.replicas != replicas {
        announce(view, &set.metadata.name, set.spec.replicas, replicas, plan);
    }
}

/// Removes empty old sets beyond the history limit.
pub(super) fn clean_up(view: &View<'_>, plan: &mut Plan) {
    let limit = usize::try_from(view.deployment.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let mut empty: Vec<&&ReplicaSet> = view
        .old
        .iter()
        .filter(|set| set.spec.replicas == 0 && set.status.replicas == 0 && !set.metadata.is_deleting())
        .filter(|set| set.status.observed_generation >= set.metadata.generation)
        .collect();
    empty.sort_by_key(|set| revision(&set.metadata.annotations));
    for set in empty.iter().take(empty.len().saturating_sub(limit)) {
        let target = Target::of::<ReplicaSet>(&set.metadata);
        plan.push(Write::Delete { target, propagation: Some("Background"), grace_period_seconds: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_revisions_are_forgotten_first() {
        for (history, revision, expected) in [("", 1, "1"), ("1", 3, "1,3"), ("1,3", 12, "1,3,12")] {
            assert_eq!(remembered(history, revision), expected);
        }
        let long = (1..=600).map(|number: i64| number.to_string()).collect::<Vec<_>>().join(",");
        let kept = remembered(&long, 601);
        assert!(kept.len() <= HISTORY_BYTES && kept.len() > HISTORY_BYTES - 4, "{}", kept.len());
        assert!(kept.ends_with(",600,601") && long.contains(kept.trim_end_matches(",601")));
    }
}
