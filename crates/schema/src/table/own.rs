//! Schemas of Isopod's own kinds, in a short notation. Their meaning is documented where they are used, in
//! `isopod_types::own`.

use std::sync::Arc;

use super::Gvk;
use crate::facts::{Enum, Field, ListType, Shape, Type, TypeId, TypeSet};

/// A field: name, shape, closed set of values (separated by `|`, or empty), description. Shapes: `s` text, `i` and `l` whole
/// numbers, `b` boolean, `q` quantity, `u` time, `[x` list, `{x` map, `@Name` another type of this file. A trailing `!` on the
/// name: required.
type FieldRow = (&'static str, &'static str, &'static str, &'static str);

/// Prefix of the definition names.
const PREFIX: &str = "dev.isopod.v1alpha1.";
/// Group and version of the kinds.
const GROUP: &str = "isopod.dev";
const VERSION: &str = "v1alpha1";
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const CONDITION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Condition";

/// Kinds with what they are for.
const KINDS: [(&str, &str, bool); 5] = [
    ("Cluster", "Settings of the cluster; there is one object, named like the cluster.", true),
    ("FargateProfile", "Says which pods run in microVMs of their own.", true),
    ("Host", "A machine that runs microVMs.", true),
    ("NodeGroup", "Worker nodes of one size, for pods that no Fargate profile matches.", true),
    ("UsageRecord", "What one microVM is billed for.", false),
];

#[rustfmt::skip]
const TYPES: [(&str, &[FieldRow]); 16] = [
    ("FargateProfileSpec", &[
        ("podExecutionRoleArn", "s", "", "Role under which images are pulled."),
        ("subnets", "[s", "", "Subnets for the pods' addresses; none means all of the cluster."),
        ("selectors!", "[@FargateProfileSelector", "", "Alternatives; a pod needs to match one."),
        ("tags", "{s", "", "Tags of the profile."),
        ("capacityType", "s", "FARGATE_SPOT|ON_DEMAND", "What kind of capacity the pods get."),
    ]),
    ("FargateProfileSelector", &[
        ("namespace!", "s", "", "Namespace of the pods; * and ? are wildcards."),
        ("labels", "{s", "", "Labels that the pods must have; * and ? are wildcards."),
    ]),
    ("FargateProfileStatus", &[("phase", "s", "", "ACTIVE once pods are matched.")]),
    ("HostSpec", &[
        ("address", "s", "", "Address at which the host agent is reached."),
        ("unschedulable", "b", "", "Whether new pods are kept away."),
    ]),
    ("HostStatus", &[
        ("capacity", "{q", "", "What the machine has."),
        ("allocatable", "{q", "", "What pods may be promised, overcommitment included."),
        ("vmm", "@HostVmm", "", "How microVMs are run."),
        ("kernelVersion", "s", "", "Kernel of the guests."),
        ("conditions", "[Condition", "", "Observed conditions."),
    ]),
    ("HostVmm", &[
        ("backend", "s", "", "qemu, firecracker or simulated."),
        ("accelerator", "s", "", "kvm or tcg."),
        ("version", "s", "", "Version of the backend."),
        ("simulated", "b", "", "Nothing really runs."),
    ]),
    ("NodeGroupSpec", &[
        ("instanceType!", "s", "", "Size of the nodes, such as t3.medium."),
        ("minSize", "l", "", "Nodes there are at least."),
        ("maxSize", "l", "", "Nodes there are at most."),
        ("desiredSize", "l", "", "Nodes there should be now."),
        ("volumeSizeGib", "l", "", "Disk of a node in GiB."),
        ("labels", "{s", "", "Labels of the nodes."),
        ("taints", "[@NodeGroupTaint", "", "Taints of the nodes."),
    ]),
    ("NodeGroupTaint", &[
        ("key!", "s", "", "Key."),
        ("value", "s", "", "Value."),
        ("effect!", "s", "NoExecute|NoSchedule|PreferNoSchedule", "What it does to pods that do not tolerate it."),
    ]),
    ("NodeGroupStatus", &[
        ("phase", "s", "", "CREATING, ACTIVE, UPDATING, DEGRADED or DELETING."),
        ("nodes", "l", "", "Nodes there are."),
        ("readyNodes", "l", "", "Nodes that are ready."),
        ("message", "s", "", "What keeps the group from its desired size."),
    ]),
    ("UsageRecordSpec", &[
        ("podUid", "s", "", "UID of the pod."),
        ("podNamespace", "s", "", "Namespace of the pod."),
        ("podName", "s", "", "Name of the pod."),
        ("podLabels", "{s", "", "Labels of the pod when its microVM was made."),
        ("profile", "s", "", "Profile that the pod matched."),
        ("node", "s", "", "Node of the pod."),
        ("host", "s", "", "Host that ran it."),
        ("vcpuMillis", "l", "", "Billed vCPU in thousandths."),
        ("memoryMib", "l", "", "Billed memory in MiB."),
        ("ephemeralStorageGib", "l", "", "Billed disk in GiB beyond what is free."),
        ("capacityType", "s", "FARGATE_SPOT|ON_DEMAND", "Kind of capacity."),
        ("startTime", "u", "", "When the microVM was asked for."),
        ("endTime", "u", "", "When the microVM was gone; absent while it runs."),
    ]),
    ("ClusterSpec", &[
        ("region", "s", "", "Region, which is part of node names."),
        ("version", "s", "", "Kubernetes version asked for."),
        ("vpc", "@Vpc", "", "The cluster's network."),
        ("serviceCidr", "s", "", "Addresses of Services."),
        ("dnsUpstreams", "[s", "", "Name servers for names outside the cluster."),
        ("fargate", "@FargateSettings", "", "Switches of Fargate behaviour."),
        ("billing", "@BillingSettings", "", "Billing."),
    ]),
    ("ClusterStatus", &[("phase", "s", "", "ACTIVE once the cluster serves.")]),
    ("Vpc", &[
        ("cidr", "s", "", "All addresses of the cluster."),
        ("subnets", "[@Subnet", "", "Private subnets."),
    ]),
    ("Subnet", &[
        ("id", "s", "", "Name, such as subnet-0a1b."),
        ("cidr", "s", "", "Its addresses."),
        ("zone", "s", "", "Availability zone."),
    ]),
    ("FargateSettings", &[
        ("profilePrecedence", "s", "name|specificity", "Which of several matching profiles wins."),
        ("memoryOverhead", "q", "", "Memory added to what every pod needs."),
        ("securityGroupPolicy", "s", "add|replace", "How a SecurityGroupPolicy combines with the cluster's group."),
        ("cpuOvercommit", "l", "", "Virtual CPUs promised per CPU of a host."),
        ("memoryOvercommit", "l", "", "Memory promised per byte of a host."),
    ]),
    ("BillingSettings", &[
        ("until", "s", "containersEnded|podDeleted", "When billing of a pod ends."),
        ("startTime", "u", "", "When billing of the control plane began."),
    ]),
];

/// Adds the types of our kinds to a set. Returns their descriptions: definition, field (empty for the type itself), text.
pub(super) fn add_types(set: &mut TypeSet) -> Vec<(String, &'static str, &'static str)> {
    let mut prose = Vec::new();
    for (at, (name, _)) in TYPES.iter().enumerate() {
        // References go both ways, so positions are handed out before any field is made.
        let id = TypeId(u32::try_from(set.types.len() + at).expect("a handful of types"));
        set.by_name.insert(format!("{PREFIX}{name}"), id);
    }
    for (name, rows) in TYPES {
        let fields = rows.iter().map(|row| field(set, row)).collect();
        prose.extend(rows.iter().map(|row| (format!("{PREFIX}{name}"), row.0.trim_end_matches('!'), row.3)));
        set.types.push(ty(name, fields, Vec::new()));
    }
    for (kind, text, has_status) in KINDS {
        let name = format!("{PREFIX}{kind}");
        prose.extend([(name.clone(), "metadata", "Standard metadata."), (name.clone(), "spec", "What is wanted.")]);
        prose.extend(has_status.then(|| (name.clone(), "status", "What is.")));
        prose.push((name, "", text));
        add_kind(set, kind, has_status);
    }
    prose
}

fn add_kind(set: &mut TypeSet, kind: &str, has_status: bool) {
    let mut fields =
        vec![plain("metadata", reference(set, OBJECT_META)), plain("spec", own(set, &format!("{kind}Spec")))];
    if has_status {
        fields.push(plain("status", own(set, &format!("{kind}Status"))));
    }
    let object = push(set, ty(kind, with_type_meta(fields), vec![Gvk::new(GROUP, VERSION, kind)]));
    let mut items = plain("items", Shape::List(Box::new(Shape::Object(object))));
    items.required = true;
    let list = format!("{kind}List");
    let fields = vec![plain("metadata", reference(set, LIST_META)), items];
    push(set, ty(&list, with_type_meta(fields), vec![Gvk::new(GROUP, VERSION, &list)]));
}

pub(super) fn push(set: &mut TypeSet, ty: Type) -> TypeId {
    let id = TypeId(u32::try_from(set.types.len()).expect("a handful of types"));
    set.by_name.insert(ty.name.clone(), id);
    set.types.push(ty);
    id
}

pub(super) fn with_type_meta(mut fields: Vec<Field>) -> Vec<Field> {
    fields.extend([plain("apiVersion", Shape::String), plain("kind", Shape::String)]);
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    fields
}

fn ty(name: &str, mut fields: Vec<Field>, gvks: Vec<Gvk>) -> Type {
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Type {
        name: format!("{PREFIX}{name}"),
        go_name: format!("v1alpha1.{name}"),
        fields,
        atomic: false,
        custom: false,
        open: false,
        gvks,
        proto_order: Vec::new(),
    }
}

pub(super) fn plain(name: &str, shape: Shape) -> Field {
    Field { name: name.into(), shape, omit_empty: true, ..Field::blank() }
}

fn field(set: &TypeSet, (name, shape, values, _): &FieldRow) -> Field {
    let values = (!values.is_empty())
        .then(|| Arc::new(Enum { name: "string".into(), values: values.split('|').map(str::to_owned).collect() }));
    let shape_of_field = self::shape(set, shape);
    let is_conditions = *name == "conditions";
    Field {
        required: name.ends_with('!'),
        values,
        list_type: if is_conditions { ListType::Map } else { ListType::Atomic },
        list_type_declared: matches!(shape_of_field, Shape::List(_)),
        list_map_keys: if is_conditions { vec!["type".into()] } else { Vec::new() },
        ..plain(name.trim_end_matches('!'), shape_of_field)
    }
}

fn own(set: &TypeSet, name: &str) -> Shape {
    reference(set, &format!("{PREFIX}{name}"))
}

pub(super) fn reference(set: &TypeSet, name: &str) -> Shape {
    Shape::Object(*set.by_name.get(name).unwrap_or_else(|| panic!("own.rs refers to {name}, which is not a type")))
}

fn shape(set: &TypeSet, text: &str) -> Shape {
    match text {
        "s" => Shape::String,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "b" => Shape::Bool,
        "q" => Shape::Quantity,
        "u" => Shape::MicroTime,
        "Condition" => reference(set, CONDITION),
        _ => match text.split_at(1) {
            ("[", item) => Shape::List(Box::new(shape(set, item))),
            ("{", item) => Shape::Map(Box::new(shape(set, item))),
            (_, name) => own(set, name),
        },
    }
}
