//! Defaults that are constants, by type and field.

use serde_json::{Map, Value};

use super::{Object, put};
use crate::facts::Type;

/// A constant default.
enum Constant {
    Text(&'static str),
    Number(i64),
    Flag(bool),
    EmptyObject,
}

use Constant::{EmptyObject as E, Flag as B, Number as N, Text as S};

impl Constant {
    fn value(&self) -> Value {
        match self {
            S(text) => (*text).into(),
            N(number) => (*number).into(),
            B(flag) => (*flag).into(),
            E => Map::new().into(),
        }
    }
}

const KEYRING: &str = "/etc/ceph/keyring";
const RBAC: &str = "rbac.authorization.k8s.io";
/// 0644.
const FILE_MODE: i64 = 420;

type Fields = &'static [(&'static str, Constant)];

const FIELD_REF: Fields = &[("apiVersion", S("v1"))];
const MODE: Fields = &[("defaultMode", N(FILE_MODE))];
const TCP: Fields = &[("protocol", S("TCP"))];
const RBD: Fields = &[("pool", S("rbd")), ("user", S("admin")), ("keyring", S(KEYRING))];
const SCALE_IO: Fields = &[("storageMode", S("ThinProvisioned")), ("fsType", S("xfs"))];
const ISCSI: Fields = &[("iscsiInterface", S("default"))];
const ROLE_REF: Fields = &[("apiGroup", S(RBAC))];
const SERVICE_PORT_443: Fields = &[("port", N(443))];
const VALIDATING_HOOK: Fields = &[
    ("failurePolicy", S("Fail")),
    ("matchPolicy", S("Equivalent")),
    ("namespaceSelector", E),
    ("objectSelector", E),
    ("timeoutSeconds", N(10)),
];
const MUTATING_HOOK: Fields = &[
    ("failurePolicy", S("Fail")),
    ("matchPolicy", S("Equivalent")),
    ("namespaceSelector", E),
    ("objectSelector", E),
    ("timeoutSeconds", N(10)),
    ("reinvocationPolicy", S("Never")),
];
const FAILURE_POLICY: Fields = &[("failurePolicy", S("Fail"))];

/// Fields of a type, by its definition name without `io.k8s.api.`.
fn fields(name: &str) -> Fields {
    match name {
        "core.v1.PodSpec" => &[
            ("restartPolicy", S("Always")),
            ("dnsPolicy", S("ClusterFirst")),
            ("schedulerName", S("default-scheduler")),
            ("terminationGracePeriodSeconds", N(30)),
            ("securityContext", E),
        ],
        "core.v1.Container" | "core.v1.EphemeralContainer" => &[
            ("terminationMessagePath", S("/dev/termination-log")),
            ("terminationMessagePolicy", S("File")),
            ("resources", E),
        ],
        "core.v1.ContainerPort" | "core.v1.EndpointPort" | "networking.v1.NetworkPolicyPort" => TCP,
        "core.v1.Probe" => &[
            ("timeoutSeconds", N(1)),
            ("periodSeconds", N(10)),
            ("successThreshold", N(1)),
            ("failureThreshold", N(3)),
        ],
        "core.v1.HTTPGetAction" => &[("path", S("/")), ("scheme", S("HTTP"))],
        "core.v1.GRPCAction" => &[("service", S(""))],
        "core.v1.ObjectFieldSelector" => FIELD_REF,
        "core.v1.FileKeySelector" => &[("optional", B(false))],
        "core.v1.SecretVolumeSource"
        | "core.v1.ConfigMapVolumeSource"
        | "core.v1.DownwardAPIVolumeSource"
        | "core.v1.ProjectedVolumeSource" => MODE,
        "core.v1.ServiceAccountTokenProjection" => &[("expirationSeconds", N(3600))],
        "core.v1.HostPathVolumeSource" => &[("type", S(""))],
        "core.v1.ISCSIVolumeSource" | "core.v1.ISCSIPersistentVolumeSource" => ISCSI,
        "core.v1.RBDVolumeSource" | "core.v1.RBDPersistentVolumeSource" => RBD,
        "core.v1.ScaleIOVolumeSource" | "core.v1.ScaleIOPersistentVolumeSource" => SCALE_IO,
        "core.v1.AzureDiskVolumeSource" => {
            &[("cachingMode", S("ReadWrite")), ("fsType", S("ext4")), ("readOnly", B(false)), ("kind", S("Shared"))]
        }
        "core.v1.PersistentVolumeClaimSpec" => &[("volumeMode", S("Filesystem"))],
        "core.v1.PersistentVolumeClaim" => &[("status", E)],
        "core.v1.PersistentVolumeClaimStatus" => &[("phase", S("Pending"))],
        "core.v1.PersistentVolumeSpec" => {
            &[("persistentVolumeReclaimPolicy", S("Retain")), ("volumeMode", S("Filesystem"))]
        }
        "core.v1.PersistentVolume" => &[("status", E)],
        "core.v1.PersistentVolumeStatus" => &[("phase", S("Pending"))],
        _ => other_fields(name),
    }
}

fn other_fields(name: &str) -> Fields {
    match name {
        "apps.v1.ReplicaSetSpec" | "core.v1.ReplicationControllerSpec" => &[("replicas", N(1))],
        "apps.v1.DeploymentSpec" => {
            &[("replicas", N(1)), ("revisionHistoryLimit", N(10)), ("progressDeadlineSeconds", N(600))]
        }
        "apps.v1.StatefulSetSpec" => {
            &[("replicas", N(1)), ("podManagementPolicy", S("OrderedReady")), ("revisionHistoryLimit", N(10))]
        }
        "apps.v1.DaemonSetSpec" => &[("revisionHistoryLimit", N(10))],
        "batch.v1.PodFailurePolicyOnPodConditionsPattern" => &[("status", S("True"))],
        "batch.v1.CronJobSpec" => &[
            ("concurrencyPolicy", S("Allow")),
            ("suspend", B(false)),
            ("successfulJobsHistoryLimit", N(3)),
            ("failedJobsHistoryLimit", N(1)),
        ],
        "autoscaling.v1.HorizontalPodAutoscalerSpec" | "autoscaling.v2.HorizontalPodAutoscalerSpec" => {
            &[("minReplicas", N(1))]
        }
        "networking.v1.IngressClassParametersReference" => &[("scope", S("Cluster"))],
        "discovery.v1.EndpointPort" => &[("name", S("")), ("protocol", S("TCP"))],
        "rbac.v1.RoleRef" => ROLE_REF,
        "admissionregistration.v1.MutatingWebhook" => MUTATING_HOOK,
        "admissionregistration.v1.ValidatingWebhook" => VALIDATING_HOOK,
        "admissionregistration.v1.RuleWithOperations" | "admissionregistration.v1.NamedRuleWithOperations" => {
            &[("scope", S("*"))]
        }
        "admissionregistration.v1.ServiceReference" => SERVICE_PORT_443,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ServiceReference"
        | "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference" => SERVICE_PORT_443,
        "admissionregistration.v1.ValidatingAdmissionPolicySpec"
        | "admissionregistration.v1.MutatingAdmissionPolicySpec" => FAILURE_POLICY,
        "admissionregistration.v1.MatchResources" => {
            &[("matchPolicy", S("Equivalent")), ("namespaceSelector", E), ("objectSelector", E)]
        }
        "storage.v1.StorageClass" => &[("reclaimPolicy", S("Delete")), ("volumeBindingMode", S("Immediate"))],
        "storage.v1.CSIDriverSpec" => &[
            ("attachRequired", B(true)),
            ("podInfoOnMount", B(false)),
            ("storageCapacity", B(false)),
            ("fsGroupPolicy", S("ReadWriteOnceWithFSType")),
            ("requiresRepublish", B(false)),
            ("seLinuxMount", B(false)),
        ],
        "scheduling.v1.PriorityClass" => &[("preemptionPolicy", S("PreemptLowerPriority"))],
        "resource.v1.DeviceToleration" => &[("operator", S("Equal"))],
        "authentication.v1.TokenRequestSpec" => &[("expirationSeconds", N(3600))],
        "flowcontrol.v1.FlowSchemaSpec" => &[("matchingPrecedence", N(1000))],
        "flowcontrol.v1.LimitedPriorityLevelConfiguration" => {
            &[("nominalConcurrencyShares", N(30)), ("lendablePercent", N(0))]
        }
        "flowcontrol.v1.QueuingConfiguration" => &[("queues", N(64)), ("handSize", N(8)), ("queueLengthLimit", N(50))],
        "flowcontrol.v1.ExemptPriorityLevelConfiguration" => {
            &[("nominalConcurrencyShares", N(0)), ("lendablePercent", N(0))]
        }
        _ => &[],
    }
}

/// Fills in the constants of a type. An empty text is as good as none where the type knows no difference: clients in Go
/// write it out for fields that are always there, such as `roleRef.apiGroup`.
pub(super) fn apply(ty: &Type, object: &mut Object) {
    for (field, constant) in fields(ty.name.strip_prefix("io.k8s.api.").unwrap_or(&ty.name)) {
        if !object.contains_key(*field) {
            put(object, field, constant.value());
        } else if matches!(constant, S(_))
            && object[*field] == ""
            && ty.field(field).is_some_and(|field| !field.pointer)
        {
            object[*field] = constant.value();
        }
    }
}
