//! What every namespace has, and how it ends.

use isopod_types::Key;
use isopod_types::names::ROOT_CA_CONFIG_MAP;
use isopod_types::node::{ConfigMap, Namespace, ServiceAccount};
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
}

/// Ends a namespace: deletes pods first, then everything else, and lets the namespace go when nothing is left.
pub fn finish(namespace: &Namespace, left: &[Leftover]) -> Plan {
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
    plan
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
        let leftover = |target: Target, is_deleting| Leftover { target, is_deleting };
        let pod = || Target::named::<Pod>(Key::new("x", "p"));
        let config = || Target::named::<ConfigMap>(Key::new("x", "c"));
        let deleted = |left: &[Leftover]| -> Vec<String> {
            let writes = finish(&namespace(true), left).writes;
            writes
                .iter()
                .map(|w| match w {
                    Write::Delete { target, .. } => target.key.name.clone(),
                    Write::FinalizeNamespace { .. } => "finalize".into(),
                    other => format!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(deleted(&[leftover(pod(), false), leftover(config(), false)]), ["p"]);
        assert!(deleted(&[leftover(pod(), true), leftover(config(), false)]).is_empty());
        assert_eq!(deleted(&[leftover(config(), false)]), ["c"]);
        assert_eq!(deleted(&[]), ["finalize"]);
        assert_eq!(finish(&namespace(false), &[]), Plan::nothing());
    }
}
