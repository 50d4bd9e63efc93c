//! One cell: which value of the object a column shows. What needs more than a path is in the modules beside this one.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, core, network, own, pod, rbac, storage, workload};
use crate::table::Kind;
use crate::walk;

/// What is shown for nothing.
pub(super) const NONE: &str = "<none>";
/// What is shown for a value that should be there.
pub(super) const UNSET: &str = "<unset>";

/// The object of a row.
pub(super) struct Context<'a> {
    pub(super) kind: &'a Kind,
    pub(super) object: &'a Value,
    pub(super) now: Timestamp,
}

impl<'a> Context<'a> {
    /// The cell of a column; none when the column is not known.
    pub(super) fn cell(&self, column: &str) -> Option<Value> {
        if column == "Age" {
            return Some(age::since(walk::text(self.object, &["metadata", "creationTimestamp"]), self.now).into());
        }
        let cell = match (self.kind.group.as_str(), self.kind.plural.as_str()) {
            ("", "pods") => pod::cell(self, column),
            ("", "events") | ("events.k8s.io", _) => core::event(self, column),
            ("", "services" | "endpoints") => network::service(self, column),
            ("", "replicationcontrollers" | "podtemplates") | ("apps" | "batch", _) => workload::cell(self, column),
            ("autoscaling" | "policy", _) => workload::policy(self, column),
            ("", _) => core::cell(self, column),
            ("networking.k8s.io" | "discovery.k8s.io", _) => network::cell(self, column),
            ("storage.k8s.io" | "admissionregistration.k8s.io", _) => storage::cell(self, column),
            ("isopod.dev", _) => own::cell(self, column),
            ("rbac.authorization.k8s.io", _) => rbac::cell(self, column),
            (
                "apiregistration.k8s.io" | "certificates.k8s.io" | "flowcontrol.apiserver.k8s.io" | "resource.k8s.io",
                _,
            ) => rbac::condition_cell(self, column),
            _ => None,
        };
        cell.or_else(|| self.path_cell(column))
    }

    /// The object's name; a default class says that it is one.
    pub(super) fn name(&self) -> Value {
        let marks: &[&str] = match self.kind.plural.as_str() {
            "storageclasses" => {
                &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            }
            "volumeattributesclasses" => &["volumeattributesclass.alpha.kubernetes.io/is-default-class"],
            _ => &[],
        };
        let is_default = |mark: &&str| walk::text(self.object, &["metadata", "annotations", mark]) == "true";
        let name = self.text("metadata.name");
        if marks.iter().any(is_default) { format!("{name} (default)").into() } else { name.into() }
    }

    /// Text at a dotted path; empty when absent.
    pub(super) fn text(&self, path: &str) -> &'a str {
        self.value(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// Text at a dotted path, or something else when it is absent or empty.
    pub(super) fn text_or(&self, path: &str, otherwise: &str) -> Value {
        match self.text(path) {
            "" => otherwise.into(),
            text => text.into(),
        }
    }

    /// Whole number at a dotted path; 0 when absent.
    pub(super) fn number(&self, path: &str) -> i64 {
        self.value(path).and_then(Value::as_i64).unwrap_or_default()
    }

    /// Value at a dotted path.
    pub(super) fn value(&self, path: &str) -> Option<&'a Value> {
        path.split('.').try_fold(self.object, |value, name| value.get(name))
    }

    /// List at a dotted path.
    pub(super) fn items(&self, path: &str) -> &'a [Value] {
        self.value(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Number of entries of a map or list.
    pub(super) fn count(&self, path: &str) -> usize {
        match self.value(path) {
            Some(Value::Object(map)) => map.len(),
            Some(Value::Array(items)) => items.len(),
            _ => 0,
        }
    }

    /// Time since the moment at a dotted path.
    pub(super) fn since(&self, path: &str) -> Value {
        age::since(self.text(path), self.now).into()
    }

    /// Columns of kinds that need nothing but a path.
    fn path_cell(&self, column: &str) -> Option<Value> {
        let (path, otherwise) = PATHS
            .iter()
            .find(|(plural, name, ..)| *plural == self.kind.plural && *name == column)
            .map(|(_, _, path, otherwise)| (*path, *otherwise))?;
        Some(match self.value(path) {
            None | Some(Value::Null) => otherwise.into(),
            Some(Value::Array(items)) if path.ends_with("s") && items.iter().all(Value::is_string) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
            }
            Some(Value::Array(items)) => items.len().into(),
            Some(Value::Object(map)) => map.get("name").cloned().unwrap_or_else(|| NONE.into()),
            Some(scalar) => scalar.clone(),
        })
    }
}

/// Plural, column, dotted path, what to show when absent. A list of texts is joined, another list counted.
const PATHS: [(&str, &str, &str, &str); 41] = [
    ("certificatesigningrequests", "SignerName", "spec.signerName", NONE),
    ("certificatesigningrequests", "Requestor", "spec.username", NONE),
    ("csidrivers", "AttachRequired", "spec.attachRequired", "true"),
    ("csidrivers", "PodInfoOnMount", "spec.podInfoOnMount", "false"),
    ("csidrivers", "StorageCapacity", "spec.storageCapacity", "false"),
    ("csidrivers", "RequiresRepublish", "spec.requiresRepublish", "false"),
    ("csidrivers", "Modes", "spec.volumeLifecycleModes", NONE),
    ("csinodes", "Drivers", "spec.drivers", "0"),
    ("csistoragecapacities", "StorageClassName", "storageClassName", ""),
    ("csistoragecapacities", "Capacity", "capacity", UNSET),
    ("storageclasses", "Provisioner", "provisioner", NONE),
    ("storageclasses", "ReclaimPolicy", "reclaimPolicy", "Delete"),
    ("storageclasses", "VolumeBindingMode", "volumeBindingMode", "Immediate"),
    ("storageclasses", "AllowVolumeExpansion", "allowVolumeExpansion", "false"),
    ("volumeattachments", "Attacher", "spec.attacher", NONE),
    ("volumeattachments", "PV", "spec.source.persistentVolumeName", ""),
    ("volumeattachments", "Node", "spec.nodeName", NONE),
    ("volumeattachments", "Attached", "status.attached", "false"),
    ("volumeattributesclasses", "DriverName", "driverName", NONE),
    ("mutatingadmissionpolicies", "Mutations", "spec.mutations", "0"),
    ("mutatingadmissionpolicybindings", "PolicyName", "spec.policyName", NONE),
    ("mutatingwebhookconfigurations", "Webhooks", "webhooks", "0"),
    ("validatingadmissionpolicies", "Validations", "spec.validations", "0"),
    ("validatingadmissionpolicybindings", "PolicyName", "spec.policyName", NONE),
    ("validatingwebhookconfigurations", "Webhooks", "webhooks", "0"),
    ("priorityclasses", "Value", "value", "0"),
    ("priorityclasses", "Global-Default", "globalDefault", "false"),
    ("priorityclasses", "PreemptionPolicy", "preemptionPolicy", "PreemptLowerPriority"),
    ("leases", "Holder", "spec.holderIdentity", ""),
    ("runtimeclasses", "Handler", "handler", NONE),
    ("flowschemas", "PriorityLevel", "spec.priorityLevelConfiguration", NONE),
    ("flowschemas", "MatchingPrecedence", "spec.matchingPrecedence", NONE),
    ("flowschemas", "DistinguisherMethod", "spec.distinguisherMethod.type", NONE),
    ("prioritylevelconfigurations", "Type", "spec.type", NONE),
    ("prioritylevelconfigurations", "NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares", NONE),
    ("prioritylevelconfigurations", "Queues", "spec.limited.limitResponse.queuing.queues", NONE),
    ("prioritylevelconfigurations", "HandSize", "spec.limited.limitResponse.queuing.handSize", NONE),
    ("prioritylevelconfigurations", "QueueLengthLimit", "spec.limited.limitResponse.queuing.queueLengthLimit", NONE),
    ("resourceslices", "Node", "spec.nodeName", ""),
    ("resourceslices", "Driver", "spec.driver", NONE),
    ("resourceslices", "Pool", "spec.pool", NONE),
];
