//! Facts about the one built-in group whose Go sources no registry carries: `apiregistration.k8s.io/v1`.
//!
//! JSON names and shapes come from the definitions as for all others; here are only protobuf tags and pointers.

/// Definition name, JSON name, protobuf tag, wire letter, pointer.
pub const FIELDS: [(&str, &str, u64, char, bool); 21] = [
    ("APIService", "metadata", 1, 'b', false),
    ("APIService", "spec", 2, 'b', false),
    ("APIService", "status", 3, 'b', false),
    ("APIServiceList", "metadata", 1, 'b', false),
    ("APIServiceList", "items", 2, 'b', false),
    ("APIServiceSpec", "service", 1, 'b', true),
    ("APIServiceSpec", "group", 2, 'b', false),
    ("APIServiceSpec", "version", 3, 'b', false),
    ("APIServiceSpec", "insecureSkipTLSVerify", 4, 'v', false),
    ("APIServiceSpec", "caBundle", 5, 'b', false),
    ("APIServiceSpec", "groupPriorityMinimum", 7, 'v', false),
    ("APIServiceSpec", "versionPriority", 8, 'v', false),
    ("APIServiceStatus", "conditions", 1, 'b', false),
    ("APIServiceCondition", "type", 1, 'b', false),
    ("APIServiceCondition", "status", 2, 'b', false),
    ("APIServiceCondition", "lastTransitionTime", 3, 'b', false),
    ("APIServiceCondition", "reason", 4, 'b', false),
    ("APIServiceCondition", "message", 5, 'b', false),
    ("ServiceReference", "namespace", 1, 'b', false),
    ("ServiceReference", "name", 2, 'b', false),
    ("ServiceReference", "port", 3, 'v', true),
];

/// Prefix of the definition names above.
pub const PREFIX: &str = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.";
