//! The rows: Kubernetes 1.36's stable resources and Isopod's own, in discovery order.
//!
//! Facts only, in a short notation that [`super::build`] expands; no behaviour.

/// One resource as written here.
pub(super) struct Row {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    /// `N` namespaced or `C` cluster, then behaviour flags `C`, `U`, `G`, `R`, `O` after a space.
    pub scope: &'static str,
    /// Comma-separated.
    pub short: &'static str,
    /// Comma-separated.
    pub categories: &'static str,
    /// Comma-separated.
    pub subresources: &'static str,
    /// Verb letters `c d D g l p u w`; empty means all.
    pub verbs: &'static str,
    /// Separated by `|`; `#` integer, `?` boolean, leading `<` wide. Empty means the default table.
    pub columns: &'static str,
}

#[rustfmt::skip]
#[expect(clippy::too_many_arguments, reason = "the columns of one table")]
const fn r(
    api: (&'static str, &'static str), plural: &'static str, kind: &'static str, scope: &'static str,
    short: &'static str, categories: &'static str, subresources: &'static str, verbs: &'static str, columns: &'static str,
) -> Row {
    Row { group: api.0, version: api.1, plural, kind, scope, short, categories, subresources, verbs, columns }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const AUTHN: (&str, &str) = ("authentication.k8s.io", "v1");
const AUTHZ: (&str, &str) = ("authorization.k8s.io", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const NET: (&str, &str) = ("networking.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
const STORAGE: (&str, &str) = ("storage.k8s.io", "v1");
const ADMISSION: (&str, &str) = ("admissionregistration.k8s.io", "v1");
const FLOW: (&str, &str) = ("flowcontrol.apiserver.k8s.io", "v1");
const RESOURCE: (&str, &str) = ("resource.k8s.io", "v1");
const METRICS: (&str, &str) = ("metrics.k8s.io", "v1beta1");
const OWN: (&str, &str) = ("isopod.dev", "v1alpha1");

const POD_SUBRESOURCES: &str = "attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status";
const HPA_COLUMNS: &str = "Reference|Targets|MinPods|MaxPods|Replicas|Age";
const EVENT_COLUMNS: &str = "Last Seen|Type|Reason|Object|<Subobject|<Source|Message|<First Seen|<Count|<Name";
const WORKLOAD_COLUMNS: &str = "Desired#|Current#|Ready#|Age|<Containers|<Images|<Selector";
const BINDING_COLUMNS: &str = "Role|Age|<Users|<Groups|<ServiceAccounts";

#[rustfmt::skip]
pub(super) const ROWS: [Row; 75] = [
    r(CORE, "bindings", "Binding", "N", "", "", "", "c", ""),
    r(CORE, "componentstatuses", "ComponentStatus", "C", "cs", "", "", "gl", "Status|Message|Error"),
    r(CORE, "configmaps", "ConfigMap", "N U", "cm", "", "", "", "Data|Age"),
    r(CORE, "endpoints", "Endpoints", "N CU", "ep", "", "", "", "Endpoints|Age"),
    r(CORE, "events", "Event", "N CU", "ev", "", "", "", EVENT_COLUMNS),
    r(CORE, "limitranges", "LimitRange", "N CU", "limits", "", "", "", ""),
    r(CORE, "namespaces", "Namespace", "C UR", "ns", "", "finalize,status", "cdglpuw", "Status|Age"),
    r(CORE, "nodes", "Node", "C U", "no", "", "proxy,status", "",
        "Status|Roles|Age|Version|<Internal-IP|<External-IP|<OS-Image|<Kernel-Version|<Container-Runtime"),
    r(CORE, "persistentvolumeclaims", "PersistentVolumeClaim", "N UR", "pvc", "", "status", "",
        "Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|<VolumeMode"),
    r(CORE, "persistentvolumes", "PersistentVolume", "C UR", "pv", "", "status", "",
        "Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|<VolumeMode"),
    r(CORE, "pods", "Pod", "N UGR", "po", "all", POD_SUBRESOURCES, "",
        "Ready|Status|Restarts|Age|<IP|<Node|<Nominated Node|<Readiness Gates"),
    r(CORE, "podtemplates", "PodTemplate", "N UGR", "", "", "", "", "Containers|Images|Pod Labels"),
    r(CORE, "replicationcontrollers", "ReplicationController", "N UGO", "rc", "all", "scale,status", "", WORKLOAD_COLUMNS),
    r(CORE, "resourcequotas", "ResourceQuota", "N UR", "quota", "", "status", "", "Request|Limit|Age"),
    r(CORE, "secrets", "Secret", "N U", "", "", "", "", "Type|Data|Age"),
    r(CORE, "serviceaccounts", "ServiceAccount", "N UR", "sa", "", "token", "", "Age"),
    r(CORE, "services", "Service", "N CUR", "svc", "all", "proxy,status", "",
        "Type|Cluster-IP|External-IP|Port(s)|Age|<Selector"),
    r(("apiregistration.k8s.io", "v1"), "apiservices", "APIService", "C", "", "api-extensions", "status", "",
        "Service|Available|Age"),
    r(APPS, "controllerrevisions", "ControllerRevision", "N U", "", "", "", "", "Controller|Revision|Age"),
    r(APPS, "daemonsets", "DaemonSet", "N UG", "ds", "all", "status", "",
        "Desired#|Current#|Ready#|Up-to-date#|Available#|Node Selector|Age|<Containers|<Images|<Selector"),
    r(APPS, "deployments", "Deployment", "N UG", "deploy", "all", "scale,status", "",
        "Ready|Up-to-date|Available|Age|<Containers|<Images|<Selector"),
    r(APPS, "replicasets", "ReplicaSet", "N UG", "rs", "all", "scale,status", "", WORKLOAD_COLUMNS),
    r(APPS, "statefulsets", "StatefulSet", "N UG", "sts", "all", "scale,status", "", "Ready|Age|<Containers|<Images"),
    r(("events.k8s.io", "v1"), "events", "Event", "N CU", "ev", "", "", "", EVENT_COLUMNS),
    r(AUTHN, "selfsubjectreviews", "SelfSubjectReview", "C", "", "", "", "c", ""),
    r(AUTHN, "tokenreviews", "TokenReview", "C", "", "", "", "c", ""),
    r(AUTHZ, "localsubjectaccessreviews", "LocalSubjectAccessReview", "N", "", "", "", "c", ""),
    r(AUTHZ, "selfsubjectaccessreviews", "SelfSubjectAccessReview", "C", "", "", "", "c", ""),
    r(AUTHZ, "selfsubjectrulesreviews", "SelfSubjectRulesReview", "C", "", "", "", "c", ""),
    r(AUTHZ, "subjectaccessreviews", "SubjectAccessReview", "C", "", "", "", "c", ""),
    r(("autoscaling", "v2"), "horizontalpodautoscalers", "HorizontalPodAutoscaler", "N U", "hpa", "all", "status", "", HPA_COLUMNS),
    r(("autoscaling", "v1"), "horizontalpodautoscalers", "HorizontalPodAutoscaler", "N U", "hpa", "all", "status", "", HPA_COLUMNS),
    r(BATCH, "cronjobs", "CronJob", "N UG", "cj", "all", "status", "",
        "Schedule|Timezone|Suspend?|Active#|Last Schedule|Age|<Containers|<Images|<Selector"),
    r(BATCH, "jobs", "Job", "N UGO", "", "all", "status", "",
        "Status|Completions|Duration|Age|<Containers|<Images|<Selector"),
    r(("certificates.k8s.io", "v1"), "certificatesigningrequests", "CertificateSigningRequest", "C U", "csr", "",
        "approval,status", "", "Age|SignerName|Requestor|RequestedDuration|Condition"),
    r(METRICS, "nodes", "NodeMetrics", "C", "", "", "", "gl", ""),
    r(METRICS, "pods", "PodMetrics", "N", "", "", "", "gl", ""),
    r(NET, "ingressclasses", "IngressClass", "C UG", "", "", "", "", "Controller|Parameters|Age"),
    r(NET, "ingresses", "Ingress", "N UG", "ing", "", "status", "", "Class|Hosts|Address|Ports|Age"),
    r(NET, "ipaddresses", "IPAddress", "C U", "ip", "", "", "", "ParentRef"),
    r(NET, "networkpolicies", "NetworkPolicy", "N UG", "netpol", "", "", "", "Pod-Selector|Age"),
    r(NET, "servicecidrs", "ServiceCIDR", "C U", "", "", "status", "", "CIDRs|Age"),
    r(("policy", "v1"), "poddisruptionbudgets", "PodDisruptionBudget", "N G", "pdb", "", "status", "",
        "Min Available|Max Unavailable|Allowed Disruptions#|Age"),
    r(RBAC, "clusterrolebindings", "ClusterRoleBinding", "C CU", "", "", "", "", BINDING_COLUMNS),
    r(RBAC, "clusterroles", "ClusterRole", "C CU", "", "", "", "", ""),
    r(RBAC, "rolebindings", "RoleBinding", "N CU", "", "", "", "", BINDING_COLUMNS),
    r(RBAC, "roles", "Role", "N CU", "", "", "", "", ""),
    r(STORAGE, "csidrivers", "CSIDriver", "C R", "", "", "", "",
        "AttachRequired?|PodInfoOnMount?|StorageCapacity?|TokenRequests|RequiresRepublish?|Modes|Age"),
    r(STORAGE, "csinodes", "CSINode", "C R", "", "", "", "", "Drivers#|Age"),
    r(STORAGE, "csistoragecapacities", "CSIStorageCapacity", "N", "", "", "", "", "StorageClassName|Capacity"),
    r(STORAGE, "storageclasses", "StorageClass", "C UR", "sc", "", "", "",
        "Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age"),
    r(STORAGE, "volumeattachments", "VolumeAttachment", "C R", "", "", "status", "", "Attacher|PV|Node|Attached?|Age"),
    r(STORAGE, "volumeattributesclasses", "VolumeAttributesClass", "C UR", "vac", "", "", "", "DriverName|Age"),
    r(ADMISSION, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", "C G", "", "api-extensions", "", "",
        "Mutations#|ParamKind|Age"),
    r(ADMISSION, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", "C G", "", "api-extensions", "", "",
        "PolicyName|ParamRef|Age"),
    r(ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", "C G", "", "api-extensions", "", "",
        "Webhooks#|Age"),
    r(ADMISSION, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", "C G", "", "api-extensions", "status", "",
        "Validations#|ParamKind|Age"),
    r(ADMISSION, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", "C G", "", "api-extensions", "", "",
        "PolicyName|ParamRef|Age"),
    r(ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", "C G", "", "api-extensions", "", "",
        "Webhooks#|Age"),
    r(("apiextensions.k8s.io", "v1"), "customresourcedefinitions", "CustomResourceDefinition", "C G", "crd,crds",
        "api-extensions", "status", "", ""),
    r(("scheduling.k8s.io", "v1"), "priorityclasses", "PriorityClass", "C UG", "pc", "", "", "",
        "Value#|Global-Default?|Age|PreemptionPolicy"),
    r(("coordination.k8s.io", "v1"), "leases", "Lease", "N C", "", "", "", "", "Holder|Age"),
    r(("node.k8s.io", "v1"), "runtimeclasses", "RuntimeClass", "C C", "", "", "", "", "Handler|Age"),
    r(("discovery.k8s.io", "v1"), "endpointslices", "EndpointSlice", "N UG", "", "", "", "",
        "AddressType|Ports|Endpoints|Age"),
    r(FLOW, "flowschemas", "FlowSchema", "C UG", "", "", "status", "",
        "PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL"),
    r(FLOW, "prioritylevelconfigurations", "PriorityLevelConfiguration", "C UG", "", "", "status", "",
        "Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age"),
    r(RESOURCE, "deviceclasses", "DeviceClass", "C UGR", "", "", "", "", "Age"),
    r(RESOURCE, "resourceclaims", "ResourceClaim", "N UR", "", "", "status", "", "State|Age"),
    r(RESOURCE, "resourceclaimtemplates", "ResourceClaimTemplate", "N UR", "", "", "", "", "Age"),
    r(RESOURCE, "resourceslices", "ResourceSlice", "C UGR", "", "", "", "", "Node|Driver|Pool|Age"),
    r(OWN, "clusters", "Cluster", "C UG", "", "isopod", "status", "", "Region|Version|VPC|Phase|Age"),
    r(OWN, "fargateprofiles", "FargateProfile", "C UG", "fp", "isopod", "status", "",
        "Namespaces|Status|Age|<Capacity|<Subnets"),
    r(OWN, "hosts", "Host", "C UG", "", "isopod", "status", "",
        "Status|VMM|CPU|Memory|Age|<Address|<Kernel-Version|<VMM-Version"),
    r(OWN, "nodegroups", "NodeGroup", "C UG", "ng", "isopod", "status", "",
        "Instance-Type|Min|Max|Desired|Nodes|Ready|Status|Age"),
    r(OWN, "usagerecords", "UsageRecord", "C U", "usage", "isopod", "", "",
        "Namespace|Pod|vCPU|Memory|Started|Ended|<Profile|<Capacity|<Node|<Host"),
];

/// Field labels for selectors besides `metadata.name` and `metadata.namespace`, by plural.
pub(super) const FIELD_LABELS: [(&str, &str); 11] = [
    (
        "pods",
        "spec.nodeName,spec.host,spec.restartPolicy,spec.schedulerName,spec.serviceAccountName,spec.hostNetwork,\
         status.phase,status.podIP,status.podIPs,status.nominatedNodeName",
    ),
    (
        "events",
        "involvedObject.kind,involvedObject.namespace,involvedObject.name,involvedObject.uid,involvedObject.apiVersion,\
         involvedObject.resourceVersion,involvedObject.fieldPath,reason,reportingComponent,source,type",
    ),
    ("secrets", "type"),
    ("services", "spec.clusterIP,spec.type"),
    ("namespaces", "status.phase"),
    ("nodes", "spec.unschedulable"),
    ("replicationcontrollers", "status.replicas"),
    ("jobs", "status.successful"),
    ("certificatesigningrequests", "spec.signerName"),
    ("resourceslices", "spec.nodeName,spec.driver"),
    ("usagerecords", "spec.podUid,spec.podNamespace,spec.node,spec.host"),
];

/// Extra labels of `events.k8s.io`, which names the same fields differently.
pub(super) const NEW_EVENT_LABELS: &str = "regarding.kind,regarding.namespace,regarding.name,regarding.uid,\
     regarding.apiVersion,regarding.resourceVersion,regarding.fieldPath,reportingController";
