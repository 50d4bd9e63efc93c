//! What every namespace has, and how it ends.

use std::collections::BTreeMap;

use isopod_types::Key;
use isopod_types::names::ROOT_CA_CONFIG_MAP;
use isopod_types::node::{ConfigMap, Namespace, ServiceAccount};
use isopod_types::workload::Condition;
use jiff::Timestamp;
use serde_json::json;

use crate::plan::{Plan, Target, Write};

/// Gives a namespace its `default` service account and the ConfigMap with the cluster's CA, and keeps the latter true.
pub fn furnish(
    namespace: &Namespace,
    account: Option<&ServiceAccount>,
    root_ca: Option<&ConfigMap>,
    ca_pem: &str,
) -> Plan {
    let mut plan = Plan::nothing();
    if namespace.metadata.is_deleting() {
        return plan;
    }
    let name = namespace.metadata.name.as_str();
    if account.is_none() {
        let target = Target::named::<ServiceAccount>(Key::new(name, "default"));
        let metadata = json!({"name": "default", "namespace": name});
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        plan.push(Write::Create { target, object, tolerate_existing: true });
    }
    match root_ca {
        None => plan.push(create_root_ca(name, ca_pem)),
        Some(found) if found.data.get("ca.crt").map(String::as_str) != Some(ca_pem) => {
            let target = Target { resource_version: String::new(), ..Target::of::<ConfigMap>(&found.metadata) };
            plan.push(Write::Patch { target, subresource: "", patch: json!({"data": {"ca.crt": ca_pem}}) });
        }
        Some(_) => {}
    }
    plan
}

fn create_root_ca(namespace: &str, ca_pem: &str) -> Write {
    let target = Target::named::<ConfigMap>(Key::new(namespace, ROOT_CA_CONFIG_MAP));
    let text = "Holds the certificate authority by which pods verify the API server.";
    let annotations = json!({"kubernetes.io/description": text});
    let metadata = json!({"name": ROOT_CA_CONFIG_MAP, "namespace": namespace, "annotations": annotations});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": ca_pem}});
    Write::Create { target, object, tolerate_existing: true }
}

/// One object left in a namespace that is to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Leftover {
    /// The object.
    pub target: Target,
    /// Whether its deletion has begun.
    pub is_deleting: bool,
    /// Who has a say in its end.
    pub finalizers: Vec<String>,
}

/// Ends a namespace: deletes pods first, then everything else, and lets the namespace go when nothing is left. While there is
/// nothing to do but wait, its conditions say for what.
pub fn finish(namespace: &Namespace, left: &[Leftover], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if !namespace.metadata.is_deleting() {
        return plan;
    }
    if left.is_empty() {
        if !namespace.spec.finalizers.is_empty() {
            plan.push(Write::FinalizeNamespace { target: Target::of::<Namespace>(&namespace.metadata) });
        }
        return plan;
    }
    let pods_left = left.iter().any(|leftover| leftover.target.kind == "Pod");
    let due = left.iter().filter(|l| !l.is_deleting && (!pods_left || ends_with_pods(&l.target)));
    for leftover in due {
        let target = Target { resource_version: String::new(), ..leftover.target.clone() };
        plan.push(Write::Delete { target, propagation: Some("Background"), grace_period_seconds: None });
    }
    if plan.writes.is_empty() {
        tell(&mut plan, namespace, left, now);
    }
    plan
}

/// Says in the namespace's conditions what it waits for. What can fail upstream, and cannot here, is well.
fn tell(plan: &mut Plan, namespace: &Namespace, left: &[Leftover], now: Timestamp) {
    let resources = left.iter().map(|l| format!("{}.{} has", l.target.plural, l.target.group));
    let finalizers = left.iter().flat_map(|l| &l.finalizers).map(|finalizer| format!("{finalizer} in"));
    let (resources, finalizers) = (counted(resources), counted(finalizers));
    let well = |name: &str, reason: &str, message: &str| condition(name, "False", reason, message.to_owned());
    let mut conditions = vec![
        well("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
        well(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        well(
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        condition(
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {resources}"),
        ),
        if finalizers.is_empty() {
            let message = "All content-preserving finalizers finished";
            well("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", message)
        } else {
            let message = format!("Some content in the namespace has finalizers remaining: {finalizers}");
            condition("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", message)
        },
    ];
    let before = &namespace.status.conditions;
    for new in &mut conditions {
        let same = before.iter().find(|old| old.type_ == new.type_ && old.status == new.status);
        new.last_transition_time = same.and_then(|old| old.last_transition_time).or(Some(now));
    }
    if conditions != *before {
        let patch = json!({"status": {"conditions": conditions}});
        plan.push(Write::Patch { target: Target::of::<Namespace>(&namespace.metadata), subresource: "status", patch });
    }
}

fn condition(name: &str, status: &str, reason: &str, message: String) -> Condition {
    let (type_, status, reason) = (name.into(), status.into(), reason.into());
    Condition { type_, status, reason, message, ..Condition::default() }
}

/// Each text once, in order, and how often it came.
fn counted(texts: impl Iterator<Item = String>) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    texts.for_each(|text| *counts.entry(text).or_default() += 1);
    let each = counts.iter().map(|(text, count)| format!("{text} {count} resource instances"));
    each.collect::<Vec<_>>().join(", ")
}

/// Pods, and what would make new ones; the rest waits so that ending pods keep their configuration.
fn ends_with_pods(target: &Target) -> bool {
    matches!(target.group, "apps" | "batch") || matches!(target.kind, "Pod" | "ReplicationController")
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::pod::Pod;

    fn namespace(deleting: bool) -> Namespace {
        let at = deleting.then_some("1970-01-01T00:00:00Z");
        let metadata = json!({"name": "x", "uid": "u", "deletionTimestamp": at});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}})).unwrap()
    }

    #[test]
    fn namespaces_are_furnished_and_the_ca_is_kept() {
        let check = |account: bool, ca: Option<&str>, writes: usize| {
            let account = account.then(ServiceAccount::default);
            let ca = ca
                .map(|pem| ConfigMap { data: [("ca.crt".to_owned(), pem.to_owned())].into(), ..ConfigMap::default() });
            assert_eq!(furnish(&namespace(false), account.as_ref(), ca.as_ref(), "pem").writes.len(), writes);
        };
        check(false, None, 2);
        check(true, None, 1);
        check(true, Some("pem"), 0);
        check(true, Some("other"), 1);
        assert_eq!(furnish(&namespace(true), None, None, "pem"), Plan::nothing());
    }

    #[test]
    fn an_ending_namespace_loses_its_pods_first_and_goes_last() {
        let leftover = |target: Target, is_deleting| Leftover { target, is_deleting, finalizers: Vec::new() };
        let pod = || Target::named::<Pod>(Key::new("x", "p"));
        let config = || Target::named::<ConfigMap>(Key::new("x", "c"));
        let deleted = |left: &[Leftover]| -> Vec<String> {
            let writes = finish(&namespace(true), left, Timestamp::UNIX_EPOCH).writes;
            writes
                .iter()
                .map(|w| match w {
                    Write::Delete { target, .. } => target.key.name.clone(),
                    Write::FinalizeNamespace { .. } => "finalize".into(),
                    Write::Patch { patch, .. } => patch.to_string(),
                    other => format!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(deleted(&[leftover(pod(), false), leftover(config(), false)]), ["p"]);
        let waiting = deleted(&[leftover(pod(), true), leftover(config(), false)]);
        assert!(waiting.len() == 1 && waiting[0].contains("NamespaceContentRemaining"), "{waiting:?}");
        assert_eq!(deleted(&[leftover(config(), false)]), ["c"]);
        assert_eq!(deleted(&[]), ["finalize"]);
        assert_eq!(finish(&namespace(false), &[], Timestamp::UNIX_EPOCH), Plan::nothing());
    }

    #[test]
    fn what_an_ending_namespace_waits_for_is_said_once() {
        let pod = |name: &str, finalizers: &[&str]| {
            let finalizers = finalizers.iter().map(|&finalizer| finalizer.to_owned()).collect();
            Leftover { target: Target::named::<Pod>(Key::new("x", name)), is_deleting: true, finalizers }
        };
        let mut ending = namespace(true);
        let mut check = |left: &[Leftover], remaining: &str, finalizers: (&str, &str)| {
            let now = Timestamp::from_second(left.len() as i64).unwrap();
            let writes = finish(&ending, left, now).writes;
            let [Write::Patch { patch, subresource: "status", .. }] = &writes[..] else { panic!("{writes:?}") };
            ending.status = serde_json::from_value(patch["status"].clone()).unwrap();
            let said = |name: &str| ending.status.conditions.iter().find(|one| one.type_ == name).unwrap();
            assert_eq!(said("NamespaceDeletionContentFailure").status, "False");
            assert_eq!(said("NamespaceDeletionContentFailure").last_transition_time, Timestamp::from_second(2).ok());
            assert_eq!(said("NamespaceContentRemaining").message, remaining);
            let found = said("NamespaceFinalizersRemaining");
            assert_eq!((&*found.status, &*found.message), finalizers);
            assert_eq!(finish(&ending, left, now), Plan::nothing(), "said again");
        };
        let kept = [pod("a", &["example.com/f", "example.com/g"]), pod("b", &["example.com/f"])];
        let text = "Some content in the namespace has finalizers remaining: \
                    example.com/f in 2 resource instances, example.com/g in 1 resource instances";
        check(&kept, "Some resources are remaining: pods. has 2 resource instances", ("True", text));
        let none = ("False", "All content-preserving finalizers finished");
        check(&[pod("b", &[])], "Some resources are remaining: pods. has 1 resource instances", none);
    }
}
