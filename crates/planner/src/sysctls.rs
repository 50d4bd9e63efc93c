//! Kernel parameters of pods (`securityContext.sysctls`): who may set which. Sources: the kubelet's list of safe ones and its
//! words; namespaces(7) for what belongs to whom.

use isopod_types::pod::Pod;

/// Parameters that pods may set on a node that they share, and the minor version since which PodSecurity lets them.
pub const SAFE: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// What a pod may set in a kernel of its own: what belongs to namespaces, and sizes and limits. Not what the kernel runs,
/// loads or shows.
const OWN: [&str; 13] = [
    "net.",
    "kernel.shm",
    "kernel.msg",
    "kernel.sem",
    "fs.mqueue.",
    "vm.",
    "fs.inotify.",
    "fs.epoll.",
    "fs.aio-max-nr",
    "fs.file-max",
    "fs.nr_open",
    "kernel.pid_max",
    "kernel.threads-max",
];

/// The name with dots between its parts. Where slashes stand between them, dots are part of a name, as `eth0.1`.
#[must_use]
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some("/") => name.chars().map(swapped).collect(),
        _ => name.to_owned(),
    }
}

fn swapped(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

/// The parameters that not even a pod with a kernel of its own may set, by name.
#[must_use]
pub fn refused_alone(pod: &Pod) -> Vec<String> {
    let names = pod.spec.security_context.sysctls.iter().map(|sysctl| dotted(&sysctl.name));
    names.filter(|name| !OWN.iter().any(|allowed| name.starts_with(allowed))).collect()
}

/// Why a node of many pods does not take the pod, in the kubelet's words (reason `SysctlForbidden`).
#[must_use]
pub fn refused_shared(pod: &Pod) -> Option<String> {
    let spec = &pod.spec;
    spec.security_context.sysctls.iter().map(|sysctl| dotted(&sysctl.name)).find_map(|name| {
        let is_safe = SAFE.iter().any(|(safe, _)| *safe == name);
        match (is_safe, name.starts_with("net.")) {
            (false, _) => Some(format!("forbidden sysctl: {name:?} not allowlisted")),
            (true, true) if spec.host_network => {
                Some(format!("forbidden sysctl: {name:?} not allowed with host network enabled"))
            }
            (true, false) if spec.host_ipc => {
                Some(format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(names: &[&str], extra: Value) -> Pod {
        let sysctls: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        let mut spec = json!({"containers": [], "securityContext": {"sysctls": sysctls}});
        for (field, value) in extra.as_object().unwrap() {
            spec[field] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names_have_two_spellings() {
        for (name, expected) in [
            ("kernel.shmmax", "kernel.shmmax"),
            ("kernel/shmmax", "kernel.shmmax"),
            ("net/ipv4/conf/eth0.1/rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
            ("net.ipv4.conf.eth0/1.rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
            ("odd", "odd"),
        ] {
            assert_eq!(dotted(name), expected);
        }
    }

    #[test]
    fn a_kernel_of_its_own_takes_more_but_not_all() {
        let names =
            ["vm.max_map_count", "net/core/somaxconn", "kernel.core_pattern", "kernel.shmmax", "fs/suid_dumpable"];
        assert_eq!(refused_alone(&pod(&names, json!({}))), ["kernel.core_pattern", "fs.suid_dumpable"]);
    }

    #[test]
    fn a_shared_kernel_takes_what_is_safe_and_the_pods_own() {
        for (name, extra, expected) in [
            ("kernel.shm_rmid_forced", json!({}), None),
            ("kernel/shm_rmid_forced", json!({}), None),
            ("kernel.msgmax", json!({}), Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted")),
            ("net.ipv4.tcp_syncookies", json!({}), None),
            (
                "net.ipv4.tcp_syncookies",
                json!({"hostNetwork": true}),
                Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host network enabled"),
            ),
            ("kernel.shm_rmid_forced", json!({"hostNetwork": true}), None),
            (
                "kernel.shm_rmid_forced",
                json!({"hostIPC": true}),
                Some("forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled"),
            ),
        ] {
            assert_eq!(refused_shared(&pod(&[name], extra)).as_deref(), expected);
        }
    }
}
