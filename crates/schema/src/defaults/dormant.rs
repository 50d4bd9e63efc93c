//! Fields of stable types whose features Kubernetes 1.36 has switched off: it drops them when objects are written, without
//! a word. Facts only.

use super::Object;
use crate::facts::Type;

/// Types without `io.k8s.api.`, and their fields.
const FIELDS: [(&str, &[&str]); 3] = [
    ("coordination.v1.LeaseSpec", &["strategy", "preferredHolder"]),
    ("resource.v1.DeviceAttribute", &["bools", "ints", "strings", "versions"]),
    ("storage.v1.CSIDriverSpec", &["preventPodSchedulingIfMissing"]),
];

/// Drops what is switched off.
pub(super) fn apply(ty: &Type, object: &mut Object) {
    let name = ty.name.strip_prefix("io.k8s.api.").unwrap_or(&ty.name);
    for field in FIELDS.iter().filter(|(ty, _)| *ty == name).flat_map(|(_, fields)| fields.iter()) {
        object.shift_remove(*field);
    }
}
