//! A container's configuration as what its first process has to do, with nothing left to choose. Pure: words in, a plan out.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use isopod_guest_api::{ContainerConfig, ResourceLimit, UpdateContainerRequest};
use rustix::{process::Resource, thread::CapabilitySet};

use crate::{fault::Fault, sandbox::Sandbox, users::Identity};

/// What containers get unless they ask otherwise: containerd's set without `MKNOD`, because a device node made in the guest
/// could be the host's channel.
const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files and processes that a container may have unless it says otherwise: soft and hard.
const DEFAULT_LIMIT: (u64, u64) = (1024, 65_535);

/// Processor period in microseconds.
const PERIOD_MICROS: u64 = 100_000;

/// A directory or file of the guest in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
}

/// A process in a container: its first one, or that of an exec session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Process {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: CapabilitySet,
    pub(crate) limits: Vec<(Resource, u64, u64)>,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: bool,
    pub(crate) oom_score_adj: i32,
    pub(crate) terminal: bool,
}

/// A container.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) process: Process,
    /// Options of the overlay that is its root.
    pub(crate) overlay: String,
    /// Where the overlay is mounted, in the container's own mount namespace only.
    pub(crate) root: PathBuf,
    pub(crate) readonly_root: bool,
    pub(crate) binds: Vec<Bind>,
    /// Nothing masked, nothing read-only.
    pub(crate) privileged: bool,
    /// The pod's shared memory.
    pub(crate) shm: PathBuf,
    /// The pod's namespaces; none: the machine's.
    pub(crate) sandbox: Option<Arc<Sandbox>>,
}

/// The first process of a container.
pub(crate) fn process(config: &ContainerConfig, identity: &Identity, hostname: &str) -> Result<Process, Fault> {
    if config.argv.is_empty() {
        return Err(Fault::invalid(format!("container {}: no command specified", config.name)));
    }
    let cwd = if config.cwd.is_empty() { "/" } else { &config.cwd };
    if !cwd.starts_with('/') {
        return Err(Fault::invalid(format!("working directory {cwd:?} is not an absolute path")));
    }
    if !(-1000..=1000).contains(&config.oom_score_adj) {
        return Err(Fault::invalid(format!("oom_score_adj {} is not between -1000 and 1000", config.oom_score_adj)));
    }
    Ok(Process {
        argv: config.argv.clone(),
        env: environment(config, identity, hostname),
        cwd: cwd.to_owned(),
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups.clone(),
        capabilities: capabilities(config)?,
        limits: limits(&config.rlimits)?,
        no_new_privileges: config.no_new_privileges,
        seccomp: config.seccomp_default && !config.privileged,
        oom_score_adj: config.oom_score_adj,
        terminal: config.tty,
    })
}

impl Process {
    /// The process of an exec session in the container that this is the first process of.
    pub(crate) fn exec(&self, argv: &[String], terminal: bool) -> Self {
        let mut process = Self { argv: argv.to_vec(), terminal, ..self.clone() };
        if terminal && !process.env.iter().any(|(name, _)| name == "TERM") {
            process.env.push(("TERM".into(), "xterm".into()));
        }
        process
    }

    /// The last value of a variable.
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.env.iter().rev().find(|(candidate, _)| candidate == name).map_or("", |(_, value)| value)
    }
}

fn environment(config: &ContainerConfig, identity: &Identity, hostname: &str) -> Vec<(String, String)> {
    let mut defaults = vec![PATH.to_owned(), format!("HOSTNAME={hostname}"), format!("HOME={}", identity.home)];
    if config.tty {
        defaults.push("TERM=xterm".into());
    }
    let pair = |entry: &String| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    };
    let given: Vec<(String, String)> = config.env.iter().map(pair).collect();
    let names: BTreeSet<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
    let mut all: Vec<(String, String)> =
        defaults.iter().map(pair).filter(|(name, _)| !names.contains(name.as_str())).collect();
    all.extend(given);
    all
}

/// Every capability that has a name; the set of all bits holds some that no kernel knows.
fn every_capability() -> CapabilitySet {
    CapabilitySet::all().iter_names().map(|(_, capability)| capability).collect()
}

fn capabilities(config: &ContainerConfig) -> Result<CapabilitySet, Fault> {
    let all = every_capability();
    if config.privileged {
        return Ok(all);
    }
    let named = |names: &[String]| -> Result<(CapabilitySet, bool), Fault> {
        let (mut set, mut every) = (CapabilitySet::empty(), false);
        for name in names {
            let upper = name.to_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match CapabilitySet::from_name(bare) {
                _ if bare == "ALL" => every = true,
                Some(known) => set |= known,
                None => return Err(Fault::invalid(format!("unknown capability {name:?}"))),
            }
        }
        Ok((set, every))
    };
    let ((add, add_all), (drop, drop_all)) = (named(&config.add_capabilities)?, named(&config.drop_capabilities)?);
    let base = if drop_all { CapabilitySet::empty() } else { DEFAULT_CAPABILITIES };
    let added = if add_all { all } else { base | add };
    // What is added by name survives `drop: ALL`; what is dropped by name falls even with `add: ALL`.
    Ok(added - drop)
}

fn limits(given: &[ResourceLimit]) -> Result<Vec<(Resource, u64, u64)>, Fault> {
    let mut limits = Vec::new();
    for limit in given {
        let resource =
            resource(&limit.kind).ok_or_else(|| Fault::invalid(format!("unknown resource limit {:?}", limit.kind)))?;
        limits.push((resource, limit.soft, limit.hard));
    }
    for resource in [Resource::Nofile, Resource::Nproc] {
        if !limits.iter().any(|(given, ..)| *given == resource) {
            limits.push((resource, DEFAULT_LIMIT.0, DEFAULT_LIMIT.1));
        }
    }
    Ok(limits)
}

fn resource(kind: &str) -> Option<Resource> {
    Some(match kind {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        _ => return None,
    })
}

/// Files of the container's control group, and what to write into them.
pub(crate) fn control_group(config: &ContainerConfig) -> Vec<(&'static str, String)> {
    // One process out of memory ends the container, as the kubelet has it on cgroup v2.
    let mut settings = vec![("memory.oom.group", "1".to_owned())];
    settings.extend(amounts(&UpdateContainerRequest {
        id: String::new(),
        memory_limit_bytes: config.memory_limit_bytes,
        cpu_limit_millis: config.cpu_limit_millis,
        cpu_request_millis: config.cpu_request_millis,
    }));
    if config.pids_limit > 0 {
        settings.push(("pids.max", config.pids_limit.to_string()));
    }
    settings
}

/// Files with what a container may use of processor and memory.
pub(crate) fn amounts(wanted: &UpdateContainerRequest) -> [(&'static str, String); 3] {
    let limit = |number: u64| if number > 0 { number.to_string() } else { "max".to_owned() };
    let quota = if wanted.cpu_limit_millis > 0 {
        (wanted.cpu_limit_millis.saturating_mul(PERIOD_MICROS) / 1000).max(1000)
    } else {
        0
    };
    [
        ("cpu.weight", weight(wanted.cpu_request_millis).to_string()),
        ("cpu.max", format!("{} {PERIOD_MICROS}", limit(quota))),
        ("memory.max", limit(wanted.memory_limit_bytes)),
    ]
}

/// The weight of a request, by way of v1 shares: 2..262144 shares onto 1..10000, as every runtime converts them.
fn weight(request_millis: u64) -> u64 {
    let shares = (request_millis.saturating_mul(1024) / 1000).clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ContainerConfig {
        ContainerConfig { id: "c1".into(), name: "c".into(), argv: vec!["sh".into()], ..ContainerConfig::default() }
    }

    fn root() -> Identity {
        Identity { uid: 0, gid: 0, groups: vec![0], home: "/root".into() }
    }

    fn capability_names(add: &[&str], drop: &[&str]) -> Result<CapabilitySet, String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        capabilities(&ContainerConfig { add_capabilities: owned(add), drop_capabilities: owned(drop), ..config() })
            .map_err(|fault| fault.to_string())
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let all = every_capability();
        assert_eq!(all.bits().count_ones(), 41);
        assert_eq!(capability_names(&[], &["ALL"]), Ok(CapabilitySet::empty()));
        assert_eq!(capability_names(&["NET_BIND_SERVICE"], &["ALL"]), Ok(CapabilitySet::NET_BIND_SERVICE));
        assert_eq!(capability_names(&["ALL"], &[]), Ok(all));
        assert_eq!(capability_names(&["ALL"], &["SYS_ADMIN"]), Ok(all - CapabilitySet::SYS_ADMIN));
        assert_eq!(capability_names(&["cap_net_admin"], &[]), Ok(DEFAULT_CAPABILITIES | CapabilitySet::NET_ADMIN));
        assert_eq!(capability_names(&[], &["chown"]), Ok(DEFAULT_CAPABILITIES - CapabilitySet::CHOWN));
        assert!(!DEFAULT_CAPABILITIES.contains(CapabilitySet::MKNOD));
        assert!(capability_names(&["FLY"], &[]).unwrap_err().contains("FLY"));
    }

    #[test]
    fn environments_keep_what_is_given_and_add_what_is_missing() {
        let config =
            ContainerConfig { env: vec!["PATH=/x".into(), "A=b=c".into(), "EMPTY".into()], tty: true, ..config() };
        let process = process(&config, &root(), "web").unwrap();
        let expected =
            [("HOSTNAME", "web"), ("HOME", "/root"), ("TERM", "xterm"), ("PATH", "/x"), ("A", "b=c"), ("EMPTY", "")];
        assert_eq!(process.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let exec = Process { env: Vec::new(), ..process }.exec(&["ls".into()], true);
        assert_eq!((exec.variable("TERM"), exec.variable("NONE"), &exec.argv[0][..]), ("xterm", "", "ls"));
    }

    #[test]
    fn limits_and_control_groups_say_what_the_configuration_says() {
        let config = ContainerConfig {
            memory_limit_bytes: 64 << 20,
            cpu_limit_millis: 500,
            cpu_request_millis: 1000,
            pids_limit: 9,
            rlimits: vec![ResourceLimit { kind: "RLIMIT_NOFILE".into(), soft: 1, hard: 2 }],
            ..config()
        };
        let settings: Vec<String> =
            control_group(&config).iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(
            settings,
            ["memory.oom.group=1", "cpu.weight=39", "cpu.max=50000 100000", "memory.max=67108864", "pids.max=9"]
        );
        let none: Vec<String> =
            amounts(&UpdateContainerRequest::default()).iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(none, ["cpu.weight=1", "cpu.max=max 100000", "memory.max=max"]);
        assert_eq!(limits(&config.rlimits).unwrap(), [(Resource::Nofile, 1, 2), (Resource::Nproc, 1024, 65_535)]);
        assert_eq!((weight(0), weight(100), weight(1_000_000)), (1, 4, 10_000));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let limit = ResourceLimit { kind: "RLIMIT_X".into(), soft: 1, hard: 1 };
        for (config, text) in [
            (ContainerConfig { argv: vec![], ..config() }, "no command"),
            (ContainerConfig { cwd: "x".into(), ..config() }, "not an absolute path"),
            (ContainerConfig { oom_score_adj: 1001, ..config() }, "oom_score_adj"),
            (ContainerConfig { rlimits: vec![limit], ..config() }, "RLIMIT_X"),
        ] {
            let fault = process(&config, &root(), "h").unwrap_err();
            assert!(fault.0.message.contains(text), "{fault}");
        }
    }
}
