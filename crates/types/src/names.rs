//! Labels, annotations, taints and other names that users and other programs rely on.
//!
//! Those under `eks.amazonaws.com` and `CapacityProvisioned` are Amazon's, kept so that manifests and scripts carry over.

/// API group and version of Isopod's own kinds.
pub const OWN_API_VERSION: &str = "isopod.dev/v1alpha1";
/// Pod label: the Fargate profile that the pod matched, or that its author asks for.
pub const FARGATE_PROFILE_LABEL: &str = "eks.amazonaws.com/fargate-profile";
/// Node label and taint key, pod annotation: what kind of compute this is.
pub const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";
/// Value of [`COMPUTE_TYPE`] on Fargate nodes.
pub const COMPUTE_TYPE_FARGATE: &str = "fargate";
/// Value of [`COMPUTE_TYPE`] by which a pod opts out of Fargate.
pub const COMPUTE_TYPE_EC2: &str = "ec2";
/// Pod annotation asking for on-demand or spot capacity.
pub const CAPACITY_TYPE_ANNOTATION: &str = "eks.amazonaws.com/fargate-capacity-type";
/// Pod annotation with the tier the pod got, such as `0.25vCPU 0.5GB`.
pub const CAPACITY_PROVISIONED: &str = "CapacityProvisioned";
/// Name of the scheduler that makes a node for each pod.
pub const FARGATE_SCHEDULER: &str = "fargate-scheduler";
/// Name of Kubernetes' ordinary scheduler.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// Priority class that admission gives to Fargate pods.
pub const FARGATE_PRIORITY_CLASS: &str = "system-node-critical";
/// The value of that priority class.
pub const FARGATE_PRIORITY: i64 = 2_000_001_000;
/// Node label: the host whose agent runs this node's microVM.
pub const HOST_LABEL: &str = "isopod.dev/host";
/// Node annotation: `namespace/name` of the pod a Fargate node was made for.
pub const NODE_POD_ANNOTATION: &str = "isopod.dev/pod";
/// Node annotation: UID of the pod a Fargate node was made for.
pub const NODE_POD_UID_ANNOTATION: &str = "isopod.dev/pod-uid";
/// Node annotation: set by the host agent to `true` when the microVM and all that belonged to it is gone.
pub const NODE_RELEASED_ANNOTATION: &str = "isopod.dev/released";
/// Pod annotation: how its microVM came to be (`booted`, `restored` or `claimed`), written by the host agent.
pub const START_PATH_ANNOTATION: &str = "isopod.dev/start-path";
/// Label that ties a ReplicaSet and its pods to one template of a Deployment.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotation with the revision number of a Deployment or ReplicaSet.
pub const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a ReplicaSet with the revision numbers that it had before rollbacks made it the newest again.
pub const REVISION_HISTORY_ANNOTATION: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the Deployment's replicas at the time of the last scaling of a ReplicaSet.
pub const DESIRED_REPLICAS_ANNOTATION: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the most pods the Deployment may have during a rollout.
pub const MAX_REPLICAS_ANNOTATION: &str = "deployment.kubernetes.io/max-replicas";
/// Annotation in which `kubectl apply` keeps the last document.
pub const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Name of the ConfigMap with the cluster's CA in every namespace.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
/// Finalizer set for foreground deletion.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// Finalizer set for orphaning deletion.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// Directory at which pods find their service-account token.
pub const SERVICE_ACCOUNT_MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Label of worker nodes: name of their group.
pub const NODEGROUP_LABEL: &str = "eks.amazonaws.com/nodegroup";
/// Label of nodes: their instance type.
pub const INSTANCE_TYPE_LABEL: &str = "node.kubernetes.io/instance-type";
/// Annotation of worker nodes: GiB of their disk.
pub const VOLUME_SIZE_ANNOTATION: &str = "isopod.dev/volume-size-gib";
/// Annotation of worker nodes that are to go: since when their pods are moved away.
pub const DRAINING_ANNOTATION: &str = "isopod.dev/draining-since";
/// Finalizer of node groups: their nodes are drained first.
pub const NODEGROUP_FINALIZER: &str = "isopod.dev/nodegroup";
/// Annotation of worker nodes that the cluster could do without: since when.
pub const UNNEEDED_ANNOTATION: &str = "isopod.dev/unneeded-since";
/// Annotation of node groups: when autoscaling last made them larger.
pub const GROWN_ANNOTATION: &str = "isopod.dev/grown-at";
