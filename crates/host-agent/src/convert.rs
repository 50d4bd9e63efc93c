//! The planner's words in the guest's language. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use isopod_guest_api as api;
use isopod_planner::environment::{ConfigProblem, Process, sub_path};
use isopod_planner::scheduler::ports;
use isopod_planner::sysctls;
use isopod_planner::volumes::{Content, File, VolumeContent};
use isopod_types::pod::{Container, Pod, PodSpec};

/// A container's id in its guest.
pub(crate) fn container_id(name: &str, attempt: u32) -> String {
    format!("{name}-{attempt}")
}

/// Name and attempt of a container's id.
pub(crate) fn container_of(id: &str) -> Option<(&str, u32)> {
    let (name, attempt) = id.rsplit_once('-')?;
    Some((name, attempt.parse().ok()?))
}

/// The number of a signal's name, with or without `SIG`; SIGTERM for what is not known.
pub(crate) fn signal_number(name: &str) -> u32 {
    const NAMES: [(&str, u32); 12] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("WINCH", 28),
        ("PWR", 30),
    ];
    let bare = name.trim_start_matches("SIG");
    let known = NAMES.iter().find(|(known, _)| *known == bare).map(|(_, number)| *number);
    known.or_else(|| bare.parse().ok().filter(|number| (1..=64).contains(number))).unwrap_or(15)
}

/// Ports of the node that lead to a pod, for its guest. SCTP is left to who can pass it on.
pub(crate) fn host_ports(spec: &PodSpec) -> Vec<api::HostPort> {
    let lead = |(from, to): (ports::HostPort, u16)| {
        let protocol = match from.protocol.as_str() {
            "TCP" => api::TransportProtocol::Tcp,
            "UDP" => api::TransportProtocol::Udp,
            _ => return None,
        };
        let (port, pod_port) = (from.port.into(), to.into());
        Some(api::HostPort { protocol: protocol.into(), address: from.address, port, pod_port })
    };
    ports::led(spec).filter_map(lead).collect()
}

/// Ports of a node's address that lead to a pod, for the host.
pub(crate) fn published(spec: &PodSpec, node: Ipv4Addr) -> Vec<isopod_net::HostPort> {
    let lead = |(from, pod_port): (ports::HostPort, u16)| {
        let protocol = match from.protocol.as_str() {
            "TCP" => isopod_net::Protocol::Tcp,
            "UDP" => isopod_net::Protocol::Udp,
            _ => return None,
        };
        let address: Ipv4Addr = from.address.parse().ok()?;
        let here = address.is_unspecified() || address == node;
        here.then_some(isopod_net::HostPort { protocol, port: from.port, pod_port })
    };
    ports::led(spec).filter_map(lead).collect()
}

/// Kernel parameters of a pod, for its guest.
pub(crate) fn sysctls(spec: &PodSpec) -> Vec<api::Sysctl> {
    let sysctls = spec.security_context.sysctls.iter();
    sysctls.map(|sysctl| api::Sysctl { name: sysctls::dotted(&sysctl.name), value: sysctl.value.clone() }).collect()
}

/// A container for the guest.
///
/// # Errors
/// The text of a mount that cannot be made.
pub(crate) fn container(
    pod: &Pod,
    spec: &Container,
    attempt: u32,
    slot: u32,
    process: Process,
) -> Result<api::ContainerConfig, String> {
    let security = &spec.security_context;
    let variables = process.env.iter().cloned().collect();
    let mounts = spec.volume_mounts.iter().map(|mount| {
        Ok(api::Mount {
            volume: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            sub_path: sub_path(mount, &variables)?,
            read_only: mount.read_only,
        })
    });
    let mounts: Result<_, ConfigProblem> = mounts.collect();
    let pod_security = &pod.spec.security_context;
    let groups = pod_security.supplemental_groups.iter().chain(&pod_security.fs_group);
    Ok(api::ContainerConfig {
        id: container_id(&spec.name, attempt),
        name: spec.name.clone(),
        image_slot: slot,
        argv: process.argv,
        env: process.env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: process.cwd,
        user: process.user,
        run_as_user: process.run_as_user.map(i64::from),
        run_as_group: process.run_as_group.map(i64::from),
        supplemental_groups: groups.map(|group| i64::from(*group)).collect(),
        tty: spec.tty,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        mounts: mounts.map_err(|problem| problem.to_string())?,
        memory_limit_bytes: process.limits.memory_limit_bytes,
        cpu_limit_millis: process.limits.cpu_limit_millis,
        cpu_request_millis: process.limits.cpu_request_millis,
        add_capabilities: security.capabilities.add.clone(),
        drop_capabilities: security.capabilities.drop.clone(),
        privileged: security.privileged.unwrap_or(false),
        readonly_rootfs: security.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        seccomp_default: true,
        termination_message_path: spec.termination_message_path.clone(),
        termination_message_from_logs: spec.termination_message_policy == "FallbackToLogsOnError",
        ..api::ContainerConfig::default()
    })
}

/// Volumes for the guest. `disks` says in which slot the disk of a claim is.
pub(crate) fn volumes(contents: Vec<VolumeContent>, disks: &BTreeMap<String, u32>) -> Vec<api::Volume> {
    contents.into_iter().map(|content| volume(content, disks)).collect()
}

fn volume(content: VolumeContent, disks: &BTreeMap<String, u32>) -> api::Volume {
    let source = match content.source {
        Content::HostPath { path, kind } => api::VolumeSource::HostPath(api::HostPathVolume { path, kind }),
        Content::Claim { name, read_only } => {
            let slot = disks.get(&name).copied().unwrap_or(u32::MAX);
            api::VolumeSource::Disk(api::DiskVolume { slot, read_only })
        }
        Content::Empty { memory, size_limit_bytes } => {
            api::VolumeSource::EmptyDir(api::EmptyDirVolume { memory, size_limit_bytes })
        }
        Content::Files(given) => api::VolumeSource::Files(files(given)),
    };
    api::Volume { name: content.name, source: Some(source) }
}

/// Files for the guest.
pub(crate) fn files(files: Vec<File>) -> api::FilesVolume {
    let file =
        |file: File| api::VolumeFile { path: file.path, content: file.content.into(), mode: file.mode, uid: 0, gid: 0 };
    api::FilesVolume { files: files.into_iter().map(file).collect() }
}

/// What a pod's resolver is told.
pub(crate) fn resolver(pod: &Pod, cluster_dns: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let namespace = &pod.metadata.namespace;
    let (mut servers, mut search, mut options) = match pod.spec.dns_policy.as_str() {
        "None" => Default::default(),
        "Default" => (vec![cluster_dns.to_owned()], Vec::new(), Vec::new()),
        _ => {
            let search = [format!("{namespace}.svc.cluster.local"), "svc.cluster.local".into(), "cluster.local".into()];
            (vec![cluster_dns.to_owned()], search.to_vec(), vec!["ndots:5".to_owned()])
        }
    };
    if let Some(config) = &pod.spec.dns_config {
        servers.extend(config.nameservers.iter().cloned());
        search.extend(config.searches.iter().cloned());
        let option = |option: &isopod_types::pod::DnsOption| match &option.value {
            Some(value) => format!("{}:{value}", option.name),
            None => option.name.clone(),
        };
        options.extend(config.options.iter().map(option));
    }
    (servers, search, options)
}

/// Lines of /etc/hosts that the pod asks for; the guest writes the pod's own.
pub(crate) fn hosts(pod: &Pod) -> Vec<String> {
    let line = |alias: &isopod_types::pod::HostAlias| format!("{}\t{}", alias.ip, alias.hostnames.join("\t"));
    pod.spec.host_aliases.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn ids_can_be_read_back() {
        assert_eq!(container_of(&container_id("a-b", 3)), Some(("a-b", 3)));
        assert_eq!(container_of("nodash"), None);
    }

    #[test]
    fn ports_of_the_node_lead_to_the_pod() {
        let check = |port: Value, in_guest: &[&str], on_host: bool| {
            let spec: PodSpec = serde_json::from_value(json!({"containers": [{"ports": [port]}]})).unwrap();
            let given = host_ports(&spec);
            let text = |port: &api::HostPort| {
                format!("{:?} {}:{} {}", port.protocol(), port.address, port.port, port.pod_port)
            };
            assert_eq!(given.iter().map(text).collect::<Vec<_>>(), in_guest, "{spec:?}");
            let outside = published(&spec, Ipv4Addr::new(10, 0, 0, 1));
            assert_eq!(outside.iter().any(|port| (port.port, port.pod_port) == (80, 8080)), on_host, "{spec:?}");
        };
        check(json!({"containerPort": 8080}), &[], false);
        check(json!({"containerPort": 8080, "hostPort": 80}), &["Tcp 0.0.0.0:80 8080"], true);
        let with = |more: Value| {
            let mut port = json!({"containerPort": 8080, "hostPort": 80});
            port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            port
        };
        check(with(json!({"protocol": "UDP", "hostIP": "10.0.0.1"})), &["Udp 10.0.0.1:80 8080"], true);
        check(with(json!({"hostIP": "127.0.0.1"})), &["Tcp 127.0.0.1:80 8080"], false);
        check(with(json!({"protocol": "SCTP"})), &[], false);
    }

    #[test]
    fn signals_have_numbers() {
        for (name, number) in [("SIGQUIT", 3), ("QUIT", 3), ("", 15), ("SIGNONSENSE", 15), ("9", 9), ("99", 15)] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }

    #[test]
    fn resolvers_follow_the_dns_policy() {
        for (spec, expected) in [
            (json!({"dnsPolicy": "ClusterFirst"}), (1, 3, 1)),
            (json!({"dnsPolicy": "Default"}), (1, 0, 0)),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
                (1, 0, 1),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "x"}, "spec": spec})).unwrap();
            let (servers, search, options) = resolver(&pod, "10.100.0.10");
            assert_eq!((servers.len(), search.len(), options.len()), expected);
        }
    }
}
