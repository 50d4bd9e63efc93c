//! The rows, by API group. Facts only.

use super::Rule::{
    AtLeast, AtMost, Choice, Counted, Each, EachOf, Filled, Free, Labels, MaxBytes, Named, OneOf, Port, Positive,
    Present, Required, Text, Unique,
};
use super::address::{cidr, ip};
use super::text::{
    domain_path, extended_resource, host, identifier, iqn, kind, limit_type, namespace_or_all, node_id,
    qualified_lower, request_path, search, service_path, version,
};
use super::{PORT, Row};
use crate::names::{label, label_1035, label_value, path_segment, qualified, subdomain};

/// All rows.
pub(super) const ROWS: [&[Row]; 9] =
    [CORE, VOLUMES, NETWORKING, STORAGE, ADMISSION, FLOW, AUTOSCALING, RESOURCE, OTHERS];

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const ABOVE_ZERO: &str = "must be greater than zero";
const NUMBER_ABOVE_0: &str = "must be greater than 0";
const DRIVER: &[super::Rule] = &[Required(""), Text(subdomain), MaxBytes(63)];
const VERBS: &str = "verbs must contain at least one value";

const CORE: &[Row] = &[
    ("core.v1.EndpointAddress", "hostname", &[Text(label)]),
    ("core.v1.EndpointAddress", "nodeName", &[Text(subdomain)]),
    ("core.v1.EndpointPort", "name", &[Text(label)]),
    ("core.v1.EndpointPort", "port", &[Counted(1, PORT), AtMost(65_535, PORT)]),
    ("core.v1.EndpointPort", "appProtocol", &[Text(qualified)]),
    ("core.v1.ServicePort", "appProtocol", &[Text(qualified)]),
    ("core.v1.ServiceSpec", "loadBalancerClass", &[Text(qualified)]),
    ("core.v1.ServiceSpec", "healthCheckNodePort", &[AtLeast(0, PORT), AtMost(65_535, PORT)]),
    ("core.v1.ServiceSpec", "trafficDistribution", &[OneOf(&["PreferClose", "PreferSameZone", "PreferSameNode"])]),
    ("core.v1.LimitRangeItem", "type", &[Named(limit_type)]),
    ("core.v1.LimitRangeSpec", "limits", &[Free, Unique("type")]),
    ("core.v1.NodeSelector", "nodeSelectorTerms", &[Required("must have at least one node selector term")]),
    ("core.v1.NodeSelectorRequirement", "key", &[Free]),
    ("core.v1.NodeSelectorRequirement", "operator", &[Free]),
    ("core.v1.ScopedResourceSelectorRequirement", "scopeName", &[Free]),
    ("core.v1.ScopedResourceSelectorRequirement", "operator", &[Free]),
    ("core.v1.ResourceQuotaSpec", "scopes", &[Free]),
    ("core.v1.PodReadinessGate", "conditionType", &[Named(qualified)]),
    ("core.v1.PreferredSchedulingTerm", "weight", WEIGHT),
    ("core.v1.WeightedPodAffinityTerm", "weight", WEIGHT),
    ("core.v1.PodAffinityTerm", "topologyKey", &[Required("can not be empty"), Named(qualified)]),
    ("core.v1.PodAffinityTerm", "matchLabelKeys", &[Each(qualified)]),
    ("core.v1.PodAffinityTerm", "mismatchLabelKeys", &[Each(qualified)]),
    ("core.v1.TopologySpreadConstraint", "topologyKey", &[Required("can not be empty")]),
    ("core.v1.TopologySpreadConstraint", "whenUnsatisfiable", &[Choice(&["DoNotSchedule", "ScheduleAnyway"])]),
    ("core.v1.TopologySpreadConstraint", "minDomains", &[AtLeast(1, ABOVE_ZERO)]),
    ("core.v1.TopologySpreadConstraint", "matchLabelKeys", &[Each(qualified)]),
    ("core.v1.Toleration", "operator", &[OneOf(&["Equal", "Exists"])]),
    ("core.v1.Toleration", "effect", &[OneOf(&["NoSchedule", "PreferNoSchedule", "NoExecute"])]),
    ("core.v1.SeccompProfile", "type", &[Required("type is required when seccompProfile is set"), OneOf(PROFILES)]),
    ("core.v1.AppArmorProfile", "type", &[Required("type is required when appArmorProfile is set"), OneOf(PROFILES)]),
    ("core.v1.Container", "terminationMessagePolicy", MESSAGES),
    ("core.v1.EphemeralContainer", "terminationMessagePolicy", MESSAGES),
    ("core.v1.PodDNSConfig", "nameservers", &[Each(ip)]),
    ("core.v1.PodDNSConfig", "searches", &[Each(search)]),
    ("core.v1.Taint", "key", &[Free]),
    ("core.v1.Taint", "effect", &[OneOf(&["NoSchedule", "PreferNoSchedule", "NoExecute"])]),
    ("core.v1.TopologySelectorLabelRequirement", "key", &[Named(qualified)]),
    ("core.v1.TopologySelectorLabelRequirement", "values", &[Required(""), Unique("")]),
    ("core.v1.TopologySelectorTerm", "matchLabelExpressions", &[Unique("key")]),
];

const WEIGHT: &[super::Rule] = &[Counted(1, "must be in the range 1-100"), AtMost(100, "must be in the range 1-100")];
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const MESSAGES: &[super::Rule] = &[OneOf(&["File", "FallbackToLogsOnError"])];
const TOKEN_SECONDS: &[super::Rule] = &[
    AtLeast(600, "may not specify a duration less than 10 minutes"),
    AtMost(1 << 32, "may not specify a duration larger than 2^32 seconds"),
];

const VOLUMES: &[Row] = &[
    ("core.v1.PersistentVolumeSpec", "storageClassName", &[Text(subdomain)]),
    (
        "core.v1.PersistentVolumeSpec",
        "volumeAttributesClassName",
        &[Filled("an empty string is disallowed"), Text(class)],
    ),
    ("core.v1.PersistentVolumeSpec", "accessModes", &[Required(""), EachOf(ACCESS_MODES)]),
    ("core.v1.PersistentVolumeClaimSpec", "storageClassName", &[Text(class)]),
    ("core.v1.PersistentVolumeClaimSpec", "volumeAttributesClassName", &[Text(class)]),
    ("core.v1.PersistentVolumeClaimSpec", "accessModes", &[EachOf(ACCESS_MODES)]),
    ("core.v1.VolumeNodeAffinity", "required", &[Required("must specify required node constraints")]),
    ("core.v1.CSIPersistentVolumeSource", "driver", DRIVER),
    ("core.v1.CSIVolumeSource", "driver", DRIVER),
    ("core.v1.EphemeralVolumeSource", "volumeClaimTemplate", &[Required("")]),
    ("core.v1.ServiceAccountTokenProjection", "expirationSeconds", TOKEN_SECONDS),
    ("core.v1.ISCSIVolumeSource", "lun", &[AtLeast(0, LUN), AtMost(255, LUN)]),
    ("core.v1.ISCSIVolumeSource", "iqn", &[Required(""), Text(iqn)]),
    ("core.v1.ISCSIPersistentVolumeSource", "lun", &[AtLeast(0, LUN), AtMost(255, LUN)]),
    ("core.v1.ISCSIPersistentVolumeSource", "iqn", &[Required(""), Text(iqn)]),
    ("core.v1.HostPathVolumeSource", "type", &[OneOf(HOST_PATHS)]),
    ("core.v1.CephFSPersistentVolumeSource", "monitors", &[Required("")]),
    ("core.v1.RBDPersistentVolumeSource", "monitors", &[Required("")]),
    ("core.v1.ScaleIOPersistentVolumeSource", "volumeName", &[Required("")]),
    ("core.v1.StorageOSPersistentVolumeSource", "volumeName", &[Required("")]),
    ("core.v1.TypedLocalObjectReference", "kind", &[Free]),
];

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

const LUN: &str = "must be between 0 and 255, inclusive";
const HOST_PATHS: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Names of classes; an empty one asks for none.
fn class(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { subdomain(text) }
}

const NETWORKING: &[Row] = &[
    ("networking.v1.IngressSpec", "ingressClassName", &[Text(subdomain)]),
    ("networking.v1.IngressServiceBackend", "name", &[Required(""), Text(label)]),
    ("networking.v1.IngressTLS", "hosts", &[Each(host)]),
    ("networking.v1.IngressTLS", "secretName", &[Text(subdomain)]),
    ("networking.v1.HTTPIngressRuleValue", "paths", &[Required("")]),
    (
        "networking.v1.HTTPIngressPath",
        "pathType",
        &[Required("pathType must be specified"), OneOf(&["Exact", "ImplementationSpecific", "Prefix"])],
    ),
    ("networking.v1.IngressClassSpec", "controller", &[Required(""), Text(domain_path), MaxBytes(250)]),
    ("networking.v1.IngressClassParametersReference", "kind", &[Required(""), Text(path_segment)]),
    ("networking.v1.IngressClassParametersReference", "name", &[Required(""), Text(path_segment)]),
    ("networking.v1.IngressClassParametersReference", "apiGroup", &[Text(subdomain)]),
    ("networking.v1.IngressClassParametersReference", "scope", &[Required(""), OneOf(&["Cluster", "Namespace"])]),
    ("networking.v1.IngressClassParametersReference", "namespace", &[Text(label)]),
    ("networking.v1.IPAddressSpec", "parentRef", &[Free]),
    ("networking.v1.ParentReference", "resource", &[Free]),
    ("networking.v1.ParentReference", "name", &[Free]),
    ("networking.v1.NetworkPolicyPort", "protocol", &[OneOf(&["TCP", "UDP", "SCTP"])]),
    ("networking.v1.NetworkPolicyPort", "port", &[Port]),
    ("networking.v1.IPBlock", "cidr", &[Required(""), Text(cidr)]),
    ("networking.v1.IPBlock", "except", &[Each(cidr)]),
    ("discovery.v1.EndpointSlice", "addressType", &[Required(""), OneOf(&["FQDN", "IPv4", "IPv6"])]),
    ("discovery.v1.EndpointSlice", "ports", &[Unique("name")]),
    ("discovery.v1.Endpoint", "addresses", &[Required("must contain at least 1 address")]),
    ("discovery.v1.Endpoint", "hostname", &[Text(label)]),
    ("discovery.v1.Endpoint", "nodeName", &[Text(subdomain)]),
    ("discovery.v1.EndpointHints", "forZones", &[Unique("name")]),
    ("discovery.v1.EndpointHints", "forNodes", &[Unique("name")]),
    ("discovery.v1.ForZone", "name", &[Named(label_value)]),
    ("discovery.v1.ForNode", "name", &[Named(subdomain)]),
    ("discovery.v1.EndpointPort", "name", &[Text(port_label)]),
    ("discovery.v1.EndpointPort", "appProtocol", &[Text(qualified)]),
    ("core.v1.HostAlias", "ip", &[Named(ip)]),
];

/// A port's name may be empty.
fn port_label(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { label(text) }
}

const STORAGE: &[Row] = &[
    ("storage.v1.StorageClass", "provisioner", &[Required(""), Text(qualified_lower)]),
    ("storage.v1.StorageClass", "reclaimPolicy", &[OneOf(&["Delete", "Retain", ""])]),
    ("storage.v1.VolumeAttachmentSpec", "attacher", DRIVER),
    ("storage.v1.VolumeAttachmentSpec", "nodeName", &[Named(subdomain)]),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes", &[EachOf(&["Persistent", "Ephemeral"])]),
    ("storage.v1.CSIDriverSpec", "fsGroupPolicy", &[OneOf(&["File", "None", "ReadWriteOnceWithFSType"])]),
    ("storage.v1.CSIDriverSpec", "tokenRequests", &[Unique("audience")]),
    (
        "storage.v1.CSIDriverSpec",
        "nodeAllocatableUpdatePeriodSeconds",
        &[AtLeast(10, "must be greater than or equal to 10 seconds")],
    ),
    ("storage.v1.TokenRequest", "audience", &[Free]),
    ("storage.v1.TokenRequest", "expirationSeconds", TOKEN_SECONDS),
    ("storage.v1.CSINodeSpec", "drivers", &[Unique("name")]),
    ("storage.v1.CSINodeDriver", "name", DRIVER),
    ("storage.v1.CSINodeDriver", "nodeID", &[Required(""), Text(node_id)]),
    ("storage.v1.VolumeNodeResources", "count", &[AtLeast(0, NOT_NEGATIVE)]),
    ("storage.v1.CSIStorageCapacity", "storageClassName", &[Named(subdomain)]),
    ("storage.v1.VolumeAttributesClass", "driverName", &[Required(""), Text(qualified_lower)]),
    ("storage.v1.VolumeAttributesClass", "parameters", &[Required("must contain at least one key/value pair")]),
];

const ADMISSION: &[Row] = &[
    ("admissionregistration.v1.RuleWithOperations", "apiGroups", &[Required("")]),
    ("admissionregistration.v1.RuleWithOperations", "apiVersions", &[Required("")]),
    ("admissionregistration.v1.RuleWithOperations", "resources", &[Required("")]),
    ("admissionregistration.v1.RuleWithOperations", "operations", &[Required("")]),
    ("admissionregistration.v1.NamedRuleWithOperations", "apiGroups", &[Required("")]),
    ("admissionregistration.v1.NamedRuleWithOperations", "apiVersions", &[Required("")]),
    ("admissionregistration.v1.NamedRuleWithOperations", "resources", &[Required("")]),
    ("admissionregistration.v1.NamedRuleWithOperations", "operations", &[Required("")]),
    ("admissionregistration.v1.NamedRuleWithOperations", "resourceNames", &[Each(path_segment), Unique("")]),
    ("admissionregistration.v1.MatchCondition", "name", &[Required(""), Text(qualified)]),
    ("admissionregistration.v1.MatchCondition", "expression", &[Free]),
    ("admissionregistration.v1.ValidatingWebhook", "matchConditions", &[Unique("name")]),
    ("admissionregistration.v1.MutatingWebhook", "matchConditions", &[Unique("name")]),
    ("admissionregistration.v1.ValidatingWebhook", "sideEffects", SIDE_EFFECTS),
    ("admissionregistration.v1.MutatingWebhook", "sideEffects", SIDE_EFFECTS),
    ("admissionregistration.v1.ValidatingWebhook", "admissionReviewVersions", &[Each(label_1035)]),
    ("admissionregistration.v1.MutatingWebhook", "admissionReviewVersions", &[Each(label_1035)]),
    ("admissionregistration.v1.ServiceReference", "path", &[Text(service_path)]),
    ("admissionregistration.v1.ServiceReference", "port", &[AtLeast(1, WEBHOOK_PORT), AtMost(65_535, WEBHOOK_PORT)]),
    ("admissionregistration.v1.ParamKind", "apiVersion", &[Required(""), Text(version)]),
    ("admissionregistration.v1.ParamKind", "kind", &[Required(""), Text(kind)]),
    ("admissionregistration.v1.Variable", "name", &[Required("name is not specified"), Text(identifier)]),
    ("admissionregistration.v1.Variable", "expression", &[Free]),
    ("admissionregistration.v1.Validation", "expression", &[Free]),
    ("admissionregistration.v1.Validation", "reason", &[OneOf(&["Forbidden", "Invalid", "RequestEntityTooLarge"])]),
    ("admissionregistration.v1.AuditAnnotation", "key", &[Free]),
    ("admissionregistration.v1.AuditAnnotation", "valueExpression", &[Free]),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "matchConditions", &[Unique("name")]),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "auditAnnotations", &[Unique("key")]),
    ("admissionregistration.v1.MutatingAdmissionPolicySpec", "matchConditions", &[Unique("name")]),
    ("admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", "policyName", &[Free, Text(subdomain)]),
    ("admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", "validationActions", &[Free, Unique("")]),
    ("admissionregistration.v1.MutatingAdmissionPolicyBindingSpec", "policyName", &[Text(subdomain)]),
    ("admissionregistration.v1.ParamRef", "name", &[Text(path_segment)]),
    ("admissionregistration.v1.ParamRef", "parameterNotFoundAction", &[Required(""), OneOf(&["Deny", "Allow"])]),
];

const SIDE_EFFECTS: &[super::Rule] =
    &[Required("must specify one of None, NoneOnDryRun"), OneOf(&["None", "NoneOnDryRun"])];
const WEBHOOK_PORT: &str = "port is not valid: must be between 1 and 65535, inclusive";

const FLOW: &[Row] = &[
    (
        "flowcontrol.v1.PriorityLevelConfigurationReference",
        "name",
        &[Required("must reference a priority level"), Text(subdomain)],
    ),
    (
        "flowcontrol.v1.FlowSchemaSpec",
        "matchingPrecedence",
        &[AtLeast(1, "must be a positive value"), AtMost(10_000, "must not be greater than 10000")],
    ),
    ("flowcontrol.v1.PolicyRulesWithSubjects", "subjects", &[Required("subjects must contain at least one value")]),
    ("flowcontrol.v1.Subject", "kind", &[Choice(&["Group", "ServiceAccount", "User"])]),
    ("flowcontrol.v1.ServiceAccountSubject", "name", &[Required(""), Text(account)]),
    (
        "flowcontrol.v1.ServiceAccountSubject",
        "namespace",
        &[Required("must specify namespace for service account"), Text(label)],
    ),
    (
        "flowcontrol.v1.ResourcePolicyRule",
        "apiGroups",
        &[Required("resource rules must supply at least one api group")],
    ),
    ("flowcontrol.v1.ResourcePolicyRule", "resources", &[Required("resource rules must supply at least one resource")]),
    ("flowcontrol.v1.ResourcePolicyRule", "verbs", &[Required(VERBS)]),
    ("flowcontrol.v1.ResourcePolicyRule", "namespaces", &[Each(namespace_or_all)]),
    ("flowcontrol.v1.NonResourcePolicyRule", "verbs", &[Required(VERBS)]),
    (
        "flowcontrol.v1.NonResourcePolicyRule",
        "nonResourceURLs",
        &[Required("nonResourceURLs must contain at least one value"), Each(request_path)],
    ),
    ("flowcontrol.v1.FlowDistinguisherMethod", "type", &[Free]),
    ("flowcontrol.v1.PriorityLevelConfigurationSpec", "type", &[Choice(&["Exempt", "Limited"])]),
    (
        "flowcontrol.v1.LimitedPriorityLevelConfiguration",
        "nominalConcurrencyShares",
        &[AtLeast(0, "must be a non-negative integer")],
    ),
    (
        "flowcontrol.v1.LimitedPriorityLevelConfiguration",
        "lendablePercent",
        &[AtLeast(0, PERCENT), AtMost(100, PERCENT)],
    ),
    (
        "flowcontrol.v1.LimitedPriorityLevelConfiguration",
        "borrowingLimitPercent",
        &[AtLeast(0, "if specified, must be a non-negative integer")],
    ),
    ("flowcontrol.v1.LimitResponse", "type", &[Choice(&["Queue", "Reject"])]),
    ("flowcontrol.v1.QueuingConfiguration", "queues", &[AtLeast(1, "must be positive")]),
    ("flowcontrol.v1.QueuingConfiguration", "handSize", &[AtLeast(1, "must be positive")]),
    ("flowcontrol.v1.QueuingConfiguration", "queueLengthLimit", &[AtLeast(1, "must be positive")]),
];

const PERCENT: &str = "must be between 0 and 100, inclusive";

/// A service account, or all of them.
fn account(text: &str) -> Vec<String> {
    if text == "*" { Vec::new() } else { subdomain(text) }
}

const AUTOSCALING: &[Row] = &[
    ("autoscaling.v1.CrossVersionObjectReference", "kind", &[Required(""), Text(path_segment)]),
    ("autoscaling.v1.CrossVersionObjectReference", "name", &[Required(""), Text(path_segment)]),
    ("autoscaling.v1.HorizontalPodAutoscalerSpec", "scaleTargetRef", &[Free]),
    ("autoscaling.v2.CrossVersionObjectReference", "kind", &[Required(""), Text(path_segment)]),
    ("autoscaling.v2.CrossVersionObjectReference", "name", &[Required(""), Text(path_segment)]),
    ("autoscaling.v2.HPAScalingRules", "selectPolicy", &[OneOf(&["Disabled", "Max", "Min"])]),
    (
        "autoscaling.v2.HPAScalingRules",
        "stabilizationWindowSeconds",
        &[AtLeast(0, "must be greater than or equal to zero"), AtMost(3600, "must be less than or equal to 3600")],
    ),
    ("autoscaling.v2.HPAScalingPolicy", "type", &[Choice(&["Percent", "Pods"])]),
    ("autoscaling.v2.HPAScalingPolicy", "value", &[Counted(1, ABOVE_ZERO)]),
    (
        "autoscaling.v2.HPAScalingPolicy",
        "periodSeconds",
        &[Counted(1, ABOVE_ZERO), AtMost(1800, "must be less than or equal to 1800")],
    ),
    ("autoscaling.v2.MetricSpec", "type", &[Free]),
    ("autoscaling.v2.MetricIdentifier", "name", &[Required("must specify a metric name"), Text(path_segment)]),
    ("autoscaling.v2.ResourceMetricSource", "name", &[Required("must specify a resource name")]),
    (
        "autoscaling.v2.ContainerResourceMetricSource",
        "name",
        &[Required("must specify a resource name"), Text(qualified)],
    ),
    ("autoscaling.v2.ContainerResourceMetricSource", "container", &[Required("must specify a container"), Text(label)]),
    ("autoscaling.v2.MetricTarget", "type", &[Free]),
    ("autoscaling.v2.MetricTarget", "averageUtilization", &[AtLeast(1, NUMBER_ABOVE_0)]),
    ("autoscaling.v2.MetricTarget", "value", &[Positive]),
    ("autoscaling.v2.MetricTarget", "averageValue", &[Positive]),
];

const RESOURCE: &[Row] = &[
    ("resource.v1.DeviceSelector", "cel", &[Required("")]),
    ("resource.v1.CELDeviceSelector", "expression", &[Free]),
    ("resource.v1.OpaqueDeviceConfiguration", "driver", DRIVER),
    ("resource.v1.OpaqueDeviceConfiguration", "parameters", &[Present("")]),
    ("resource.v1.DeviceClassConfiguration", "opaque", &[Required("")]),
    ("resource.v1.DeviceClaimConfiguration", "opaque", &[Required("")]),
    ("resource.v1.DeviceClassSpec", "extendedResourceName", &[Text(extended_resource)]),
    ("resource.v1.DeviceRequest", "name", &[Named(label)]),
    ("resource.v1.ExactDeviceRequest", "deviceClassName", &[Required(""), Text(subdomain)]),
    ("resource.v1.ExactDeviceRequest", "allocationMode", &[OneOf(&["All", "ExactCount"])]),
    ("resource.v1.ExactDeviceRequest", "count", &[AtLeast(0, ABOVE_ZERO)]),
    ("resource.v1.DeviceSubRequest", "name", &[Named(label)]),
    ("resource.v1.DeviceSubRequest", "deviceClassName", &[Required(""), Text(subdomain)]),
    ("resource.v1.DeviceSubRequest", "allocationMode", &[OneOf(&["All", "ExactCount"])]),
    ("resource.v1.DeviceSubRequest", "count", &[AtLeast(0, ABOVE_ZERO)]),
    ("resource.v1.DeviceConstraint", "requests", &[Unique("")]),
    ("resource.v1.DeviceClaimConfiguration", "requests", &[Unique("")]),
    ("resource.v1.ResourceSliceSpec", "driver", DRIVER),
    ("resource.v1.ResourceSliceSpec", "nodeName", &[Text(node_or_none)]),
    ("resource.v1.ResourcePool", "name", &[Required(""), Text(pool), MaxBytes(253)]),
    ("resource.v1.ResourcePool", "generation", &[AtLeast(0, "must be greater than or equal to zero")]),
    ("resource.v1.ResourcePool", "resourceSliceCount", &[Counted(1, ABOVE_ZERO)]),
    ("resource.v1.Device", "name", &[Named(label)]),
];

fn node_or_none(text: &str) -> Vec<String> {
    if text.is_empty() { vec!["must be either unset or set to a non-empty string".into()] } else { subdomain(text) }
}

/// Names with slashes between them.
fn pool(text: &str) -> Vec<String> {
    text.split('/').flat_map(subdomain).collect()
}

const OTHERS: &[Row] = &[
    (
        "rbac.v1.AggregationRule",
        "clusterRoleSelectors",
        &[Required("at least one clusterRoleSelector required if aggregationRule is non-nil")],
    ),
    ("rbac.v1.RoleRef", "apiGroup", &[Free]),
    ("rbac.v1.RoleRef", "kind", &[Free]),
    ("rbac.v1.Subject", "kind", &[Choice(&["ServiceAccount", "User", "Group"])]),
    ("scheduling.v1.PriorityClass", "preemptionPolicy", &[OneOf(&["PreemptLowerPriority", "Never"])]),
    ("node.v1.RuntimeClass", "handler", &[Required(""), Text(label)]),
    ("node.v1.Scheduling", "nodeSelector", &[Labels]),
    ("certificates.v1.CertificateSigningRequestSpec", "signerName", &[Free]),
    ("certificates.v1.CertificateSigningRequestSpec", "usages", &[Free]),
    ("apps.v1.ControllerRevision", "revision", &[AtLeast(0, NOT_NEGATIVE)]),
    ("networking.v1.NetworkPolicySpec", "policyTypes", &[Free]),
    ("apps.v1.StatefulSetSpec", "serviceName", &[Free, Text(label)]),
    ("batch.v1.JobSpec", "completionMode", &[OneOf(&["NonIndexed", "Indexed"])]),
    ("batch.v1.JobSpec", "managedBy", &[Filled(""), Text(manager), MaxBytes(63)]),
    (
        "batch.v1.JobSpec",
        "maxFailedIndexes",
        &[AtLeast(0, NOT_NEGATIVE), AtMost(100_000, "must be less than or equal to 100000")],
    ),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", "type", &[Named(qualified)]),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", "status", &[OneOf(&["False", "True", "Unknown"])]),
    (
        "batch.v1.SuccessPolicy",
        "rules",
        &[Required("at least one rules must be specified when the successPolicy is specified")],
    ),
    ("batch.v1.SuccessPolicyRule", "succeededCount", &[AtLeast(0, NOT_NEGATIVE)]),
];

/// Who manages a job; an empty text is told as missing.
fn manager(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { domain_path(text) }
}
