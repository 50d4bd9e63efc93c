//! What a Fargate microVM does not do, with the words EKS uses for it.
//!
//! Source of the texts: the events of EKS' fargate-scheduler as users report them.

use isopod_types::pod::{Container, Pod, Volume};
use isopod_types::probe::Handler;

use crate::sysctls;

/// Capabilities that may be added: the default set of containers, and a few harmless in a VM of one's own.
const ALLOWED_CAPABILITIES: [&str; 18] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "LINUX_IMMUTABLE",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_RESOURCE",
];

fn host_fields(pod: &Pod) -> Option<String> {
    let fields =
        [("HostNetwork", pod.spec.host_network), ("HostPID", pod.spec.host_pid), ("HostIPC", pod.spec.host_ipc)];
    let used: Vec<&str> = fields.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect();
    (!used.is_empty()).then(|| format!("fields not supported: {}", used.join(", ")))
}

fn added_capabilities(container: &Container) -> Option<String> {
    let added = &container.security_context.capabilities.add;
    let refused: Vec<&str> =
        added.iter().map(String::as_str).filter(|name| !ALLOWED_CAPABILITIES.contains(name)).collect();
    (!refused.is_empty()).then(|| format!("invalid SecurityContext fields: Capabilities added: {}", refused.join(", ")))
}

/// What of a container Fargate refuses; empty when it can run.
pub fn container_refusals(container: &Container) -> Vec<String> {
    let security = &container.security_context;
    let mut reasons = Vec::new();
    if security.privileged == Some(true) {
        reasons.push("invalid SecurityContext fields: Privileged".into());
    }
    if security.allow_privilege_escalation == Some(true) {
        reasons.push("invalid SecurityContext fields: AllowPrivilegeEscalation".into());
    }
    reasons.extend(added_capabilities(container));
    if container.ports.iter().any(|port| port.host_port.is_some_and(|p| p != 0) || port.host_ip.is_some()) {
        reasons.push("port contains HostIP or HostPort".into());
    }
    if !container.volume_devices.is_empty() {
        reasons.push("volumeDevices not supported".into());
    }
    for resource in container.resources.requests.keys().chain(container.resources.limits.keys()) {
        if !["cpu", "memory", "ephemeral-storage"].contains(&resource.as_str()) {
            reasons.push(format!("resource {resource} not supported: use a node group for it"));
        }
    }
    reasons.extend(foreign_probes(container));
    reasons
}

/// Probes and hooks go to the pod itself: elsewhere they would have this host ask whomever a pod names.
fn foreign_probes(container: &Container) -> Option<String> {
    let Container { liveness_probe, readiness_probe, startup_probe, lifecycle, .. } = container;
    let probes = [
        ("livenessProbe", liveness_probe.as_ref().map(|probe| &probe.handler)),
        ("readinessProbe", readiness_probe.as_ref().map(|probe| &probe.handler)),
        ("startupProbe", startup_probe.as_ref().map(|probe| &probe.handler)),
        ("lifecycle.postStart", lifecycle.post_start.as_ref()),
        ("lifecycle.preStop", lifecycle.pre_stop.as_ref()),
    ];
    let foreign = |handler: &Handler| {
        let hosts = [handler.http_get.as_ref().map(|get| &get.host), handler.tcp_socket.as_ref().map(|tcp| &tcp.host)];
        hosts.into_iter().flatten().any(|host| !host.is_empty())
    };
    let (name, _) = probes.into_iter().find(|(_, handler)| handler.is_some_and(foreign))?;
    Some(format!("container {}: {name} names a host; probes and hooks can only ask the pod itself", container.name))
}

fn volume_refusal(volume: &Volume) -> Option<String> {
    let known = volume.empty_dir.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some();
    let name = &volume.name;
    (!known && !volume.other.is_empty())
        .then(|| format!("volumes not supported: {name} is of an unsupported volume Type"))
}

/// Everything about the pod that Fargate refuses; empty when it can run.
pub fn refusals(pod: &Pod) -> Vec<String> {
    let mut reasons: Vec<String> = host_fields(pod).into_iter().collect();
    reasons.extend(pod.spec.all_containers().flat_map(container_refusals));
    reasons.extend(pod.spec.volumes.iter().filter_map(volume_refusal));
    if pod.metadata.owner_references.iter().any(|owner| owner.kind == "DaemonSet") {
        reasons.push("DaemonSet not supported".into());
    }
    let sysctls = sysctls::refused_alone(pod);
    if !sysctls.is_empty() {
        reasons.push(format!("sysctls not supported: {}", sysctls.join(", ")));
    }
    reasons.dedup();
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &[&str]) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let found = refusals(&pod);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    fn container(extra: Value) -> Value {
        let mut container = json!({"name": "c"});
        for (key, value) in extra.as_object().unwrap() {
            container[key] = value.clone();
        }
        json!({"containers": [container]})
    }

    #[test]
    fn refusals_use_the_services_words() {
        check(json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}}, {"name": "d"}]}), &[]);
        check(json!({"hostNetwork": true, "hostPID": true}), &["fields not supported: HostNetwork, HostPID"]);
        check(
            container(json!({"securityContext": {"privileged": true}})),
            &["invalid SecurityContext fields: Privileged"],
        );
        check(container(json!({"securityContext": {"allowPrivilegeEscalation": true}})), &["AllowPrivilegeEscalation"]);
        check(container(json!({"securityContext": {"allowPrivilegeEscalation": false}})), &[]);
        check(
            container(json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}})),
            &["invalid SecurityContext fields: Capabilities added: NET_ADMIN"],
        );
        check(
            container(json!({"ports": [{"containerPort": 80, "hostPort": 80}]})),
            &["port contains HostIP or HostPort"],
        );
        check(container(json!({"ports": [{"containerPort": 80}]})), &[]);
        check(container(json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}})), &["nvidia.com/gpu not supported"]);
        check(container(json!({"readinessProbe": {"httpGet": {"port": 80}}})), &[]);
        check(container(json!({"readinessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}}})), &["names a host"]);
        check(
            container(json!({"lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "x"}}}})),
            &["names a host"],
        );
        check(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), &["v is of an unsupported volume Type"]);
    }
}
