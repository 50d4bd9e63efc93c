//! A container's configuration as an OCI runtime specification. Pure: words in, JSON out.

use std::collections::BTreeSet;

use isopod_guest_api::{ContainerConfig, ResourceLimit};
use serde_json::{Value, json};

use crate::{fault::Fault, path, users::Identity};

/// What containers get unless they ask otherwise: containerd's set without `MKNOD`, because a device node made in the guest
/// could be the host's channel.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE",
    "SYS_CHROOT", "KILL", "AUDIT_WRITE",
];

/// Every capability of Linux 5.9 and later (linux/capability.h).
const ALL_CAPABILITIES: &[&str] = &[
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE",
    "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
];

const MASKED: &[&str] = &[
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files and processes that a container may have unless it says otherwise.
const OPEN_FILES: (u64, u64) = (1024, 65_535);

/// Processor period in microseconds.
const PERIOD_MICROS: u64 = 100_000;

/// A directory or file of the guest in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
}

/// The whole specification.
pub(crate) fn specification(config: &ContainerConfig, identity: &Identity, hostname: &str, binds: &[Bind]) -> Result<Value, Fault> {
    let mut mounts = standard_mounts(config.privileged);
    mounts.extend(binds.iter().map(bind_mount));
    let namespaces: Vec<Value> = ["pid", "mount", "cgroup"].iter().map(|kind| json!({ "type": kind })).collect();
    let (masked, read_only) = if config.privileged { (&[][..], &[][..]) } else { (MASKED, READ_ONLY) };
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(config, identity, hostname)?,
        "root": { "path": "rootfs", "readonly": config.readonly_rootfs },
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/isopod/{}", config.id),
            "resources": resources(config),
            "maskedPaths": masked,
            "readonlyPaths": read_only,
        },
    }))
}

/// The process part; also what an exec session is made from.
fn process(config: &ContainerConfig, identity: &Identity, hostname: &str) -> Result<Value, Fault> {
    if config.argv.is_empty() {
        return Err(Fault::invalid(format!("container {}: no command specified", config.name)));
    }
    let capabilities = capabilities(config)?;
    let cwd = if config.cwd.is_empty() { "/" } else { &config.cwd };
    if !cwd.starts_with('/') {
        return Err(Fault::invalid(format!("working directory {cwd:?} is not an absolute path")));
    }
    Ok(json!({
        "terminal": config.tty,
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups, "umask": 0o022 },
        "args": config.argv,
        "env": environment(config, identity, hostname),
        "cwd": cwd,
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "rlimits": rlimits(&config.rlimits),
        "noNewPrivileges": config.no_new_privileges,
        "oomScoreAdj": config.oom_score_adj,
    }))
}

fn environment(config: &ContainerConfig, identity: &Identity, hostname: &str) -> Vec<String> {
    let mut defaults = vec![PATH.to_owned(), format!("HOSTNAME={hostname}"), format!("HOME={}", identity.home)];
    if config.tty {
        defaults.push("TERM=xterm".into());
    }
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let given: BTreeSet<String> = config.env.iter().map(|entry| name(entry)).collect();
    defaults.retain(|entry| !given.contains(&name(entry)));
    defaults.extend(config.env.iter().cloned());
    defaults
}

fn capabilities(config: &ContainerConfig) -> Result<Vec<String>, Fault> {
    if config.privileged {
        return Ok(prefixed(ALL_CAPABILITIES.iter().copied().collect()));
    }
    let named = |names: &[String]| -> Result<BTreeSet<&'static str>, Fault> {
        let mut set: BTreeSet<&'static str> = BTreeSet::new();
        for name in names {
            let upper = name.to_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match ALL_CAPABILITIES.iter().find(|known| **known == bare) {
                _ if bare == "ALL" => set.extend(ALL_CAPABILITIES),
                Some(known) => drop(set.insert(known)),
                None => return Err(Fault::invalid(format!("unknown capability {name:?}"))),
            }
        }
        Ok(set)
    };
    let (add, drop) = (named(&config.add_capabilities)?, named(&config.drop_capabilities)?);
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut set: BTreeSet<&str> = if all(&config.drop_capabilities) { BTreeSet::new() } else { DEFAULT_CAPABILITIES.iter().copied().collect() };
    // What is added by name survives `drop: ALL`, and what is dropped by name falls even with `add: ALL`.
    set.extend(add);
    if !all(&config.drop_capabilities) {
        set.retain(|name| !drop.contains(name));
    }
    Ok(prefixed(set))
}

fn prefixed(names: BTreeSet<&str>) -> Vec<String> {
    names.into_iter().map(|name| format!("CAP_{name}")).collect()
}

fn rlimits(given: &[ResourceLimit]) -> Vec<Value> {
    let mut limits: Vec<Value> =
        given.iter().map(|limit| json!({ "type": limit.kind, "soft": limit.soft, "hard": limit.hard })).collect();
    for kind in ["RLIMIT_NOFILE", "RLIMIT_NPROC"] {
        if !given.iter().any(|limit| limit.kind == kind) {
            limits.push(json!({ "type": kind, "soft": OPEN_FILES.0, "hard": OPEN_FILES.1 }));
        }
    }
    limits
}

fn resources(config: &ContainerConfig) -> Value {
    let mut resources = json!({ "cpu": { "shares": (config.cpu_request_millis * 1024 / 1000).max(2) } });
    if config.cpu_limit_millis > 0 {
        resources["cpu"]["period"] = json!(PERIOD_MICROS);
        resources["cpu"]["quota"] = json!((config.cpu_limit_millis * PERIOD_MICROS / 1000).max(1000));
    }
    if config.memory_limit_bytes > 0 {
        resources["memory"] = json!({ "limit": config.memory_limit_bytes });
    }
    if config.pids_limit > 0 {
        resources["pids"] = json!({ "limit": config.pids_limit });
    }
    // One process out of memory ends the container, as the kubelet has it on cgroup v2.
    resources["unified"] = json!({ "memory.oom.group": "1" });
    resources
}

fn standard_mounts(privileged: bool) -> Vec<Value> {
    let system = if privileged { "rw" } else { "ro" };
    vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", system] }),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", system] }),
        json!({ "destination": "/dev/shm", "type": "bind", "source": path::SHM, "options": ["rbind", "rprivate", "rw"] }),
    ]
}

fn bind_mount(bind: &Bind) -> Value {
    let mode = if bind.read_only { "ro" } else { "rw" };
    json!({ "destination": bind.destination, "type": "bind", "source": bind.source, "options": ["rbind", "rprivate", mode] })
}

/// The process of an exec session: the container's, with another command.
pub(crate) fn exec_process(container: &Value, argv: &[String], tty: bool) -> Value {
    let mut process = container["process"].clone();
    process["args"] = json!(argv);
    process["terminal"] = json!(tty);
    if tty && let Some(env) = process["env"].as_array_mut() {
        if !env.iter().any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("TERM="))) {
            env.push(json!("TERM=xterm"));
        }
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ContainerConfig {
        ContainerConfig { id: "c1".into(), name: "c".into(), argv: vec!["sh".into()], ..ContainerConfig::default() }
    }

    fn capability_names(add: &[&str], drop: &[&str]) -> Result<Vec<String>, String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        capabilities(&ContainerConfig { add_capabilities: owned(add), drop_capabilities: owned(drop), ..config() }).map_err(|fault| fault.to_string())
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(capability_names(&[], &["ALL"]), Ok(vec![]));
        assert_eq!(capability_names(&["NET_BIND_SERVICE"], &["ALL"]), Ok(vec!["CAP_NET_BIND_SERVICE".into()]));
        assert_eq!(capability_names(&["ALL"], &[]).unwrap().len(), ALL_CAPABILITIES.len());
        assert_eq!(capability_names(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), ALL_CAPABILITIES.len() - 1);
        assert_eq!(capability_names(&["cap_net_admin"], &[]).unwrap().len(), DEFAULT_CAPABILITIES.len() + 1);
        assert!(capability_names(&[], &[]).unwrap().iter().all(|name| name != "CAP_MKNOD"));
        assert!(capability_names(&["FLY"], &[]).unwrap_err().contains("FLY"));
    }

    #[test]
    fn the_specification_is_one_that_libcontainer_reads() {
        let identity = Identity { uid: 101, gid: 102, groups: vec![50, 102], home: "/var/nginx".into() };
        let bind = Bind { source: "/a".into(), destination: "/b".into(), read_only: true };
        let full = ContainerConfig {
            memory_limit_bytes: 64 << 20,
            cpu_limit_millis: 500,
            cpu_request_millis: 250,
            pids_limit: 9,
            env: vec!["PATH=/x".into(), "A=b=c".into()],
            rlimits: vec![ResourceLimit { kind: "RLIMIT_NOFILE".into(), soft: 1, hard: 2 }],
            tty: true,
            ..config()
        };
        let value = specification(&full, &identity, "web", &[bind]).unwrap();
        let env = value["process"]["env"].as_array().unwrap();
        assert_eq!(env, json!(["HOSTNAME=web", "HOME=/var/nginx", "TERM=xterm", "PATH=/x", "A=b=c"]).as_array().unwrap());
        assert_eq!(value["linux"]["resources"]["cpu"], json!({ "shares": 256, "period": 100_000, "quota": 50_000 }));
        let read: libcontainer::oci_spec::runtime::Spec = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(read.process().as_ref().unwrap().user().uid(), 101);
        let exec: libcontainer::oci_spec::runtime::Process =
            serde_json::from_value(exec_process(&value, &["ls".into()], false)).unwrap();
        assert_eq!(exec.args().as_ref().unwrap(), &["ls"]);
        assert_eq!(exec.terminal(), Some(false));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let identity = Identity { uid: 0, gid: 0, groups: vec![], home: "/".into() };
        for (config, text) in [
            (ContainerConfig { argv: vec![], ..config() }, "no command"),
            (ContainerConfig { cwd: "x".into(), ..config() }, "not an absolute path"),
        ] {
            let fault = specification(&config, &identity, "h", &[]).unwrap_err();
            assert!(fault.0.message.contains(text), "{fault}");
        }
    }
}
