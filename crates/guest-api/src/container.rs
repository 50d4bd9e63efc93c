//! One container: what to run, and what became of it.

/// What to run. The host has resolved entry point, arguments, environment and working directory; the guest
/// resolves only what needs the image's files: users, groups, and the program on `$PATH`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ContainerConfig {
    /// Unique in the guest: letters, digits, `-`, `_` and `.`, at most 128 bytes. A restart is a new id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Name in the pod.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Slot of the image disk.
    #[prost(uint32, tag = "3")]
    pub image_slot: u32,
    /// Program and arguments.
    #[prost(string, repeated, tag = "4")]
    pub argv: Vec<String>,
    /// `NAME=value`, in order. `PATH`, `HOME` and `HOSTNAME` are added when absent.
    #[prost(string, repeated, tag = "5")]
    pub env: Vec<String>,
    /// Working directory; empty: `/`. Made if the image has none such.
    #[prost(string, tag = "6")]
    pub cwd: String,
    /// The image's user: `name`, `uid`, `name:group`, `uid:gid`; empty: root.
    #[prost(string, tag = "7")]
    pub user: String,
    /// `securityContext.runAsUser`: wins over `user`.
    #[prost(int64, optional, tag = "8")]
    pub run_as_user: Option<i64>,
    /// `securityContext.runAsGroup`.
    #[prost(int64, optional, tag = "9")]
    pub run_as_group: Option<i64>,
    /// Groups in addition to those that the image's `/etc/group` gives the user, `fsGroup` included.
    #[prost(int64, repeated, tag = "10")]
    pub supplemental_groups: Vec<i64>,
    /// Give it a terminal.
    #[prost(bool, tag = "11")]
    pub tty: bool,
    /// Keep standard input open for `Attach`; otherwise it is empty.
    #[prost(bool, tag = "12")]
    pub stdin: bool,
    /// Close standard input for good when the first session that attached to it ends.
    #[prost(bool, tag = "13")]
    pub stdin_once: bool,
    /// Volumes to mount, in order.
    #[prost(message, repeated, tag = "14")]
    pub mounts: Vec<Mount>,
    /// Memory limit in bytes; 0: the machine's.
    #[prost(uint64, tag = "15")]
    pub memory_limit_bytes: u64,
    /// CPU limit in thousandths of a core; 0: none.
    #[prost(uint64, tag = "16")]
    pub cpu_limit_millis: u64,
    /// CPU request in thousandths of a core: the weight against the pod's other containers.
    #[prost(uint64, tag = "17")]
    pub cpu_request_millis: u64,
    /// Capabilities added to the default set, without `CAP_`; `ALL` for all.
    #[prost(string, repeated, tag = "18")]
    pub add_capabilities: Vec<String>,
    /// Capabilities taken from the default set, without `CAP_`; `ALL` for all.
    #[prost(string, repeated, tag = "19")]
    pub drop_capabilities: Vec<String>,
    /// All capabilities, no seccomp filter, nothing masked.
    #[prost(bool, tag = "20")]
    pub privileged: bool,
    /// Mount the root file system read-only.
    #[prost(bool, tag = "21")]
    pub readonly_rootfs: bool,
    /// Set-user-id programs gain nothing.
    #[prost(bool, tag = "22")]
    pub no_new_privileges: bool,
    /// Apply the default seccomp filter (not for privileged containers).
    #[prost(bool, tag = "23")]
    pub seccomp_default: bool,
    /// Resource limits; those not named keep the guest's defaults (1024/65535 files, for one).
    #[prost(message, repeated, tag = "24")]
    pub rlimits: Vec<ResourceLimit>,
    /// Where the container may leave its last words; empty: `/dev/termination-log`.
    #[prost(string, tag = "25")]
    pub termination_message_path: String,
    /// `FallbackToLogsOnError`: without a message, the last lines of a failed container's output are it.
    #[prost(bool, tag = "26")]
    pub termination_message_from_logs: bool,
    /// Adjustment of the out-of-memory score, -1000 to 1000.
    #[prost(int32, tag = "27")]
    pub oom_score_adj: i32,
    /// Processes the container may have; 0: no limit of its own.
    #[prost(uint64, tag = "28")]
    pub pids_limit: u64,
    /// UID of its pod; empty: the only one.
    #[prost(string, tag = "29")]
    pub pod_uid: String,
    /// Id of the running container whose process namespace it joins; empty: one of its own.
    #[prost(string, tag = "30")]
    pub target: String,
}

/// A volume in a container.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Mount {
    /// Name of the volume.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Absolute path in the container.
    #[prost(string, tag = "2")]
    pub mount_path: String,
    /// Path in the volume; empty: all of it.
    #[prost(string, tag = "3")]
    pub sub_path: String,
    /// Mount it read-only.
    #[prost(bool, tag = "4")]
    pub read_only: bool,
}

/// One resource limit (`setrlimit`).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ResourceLimit {
    /// OCI name: `RLIMIT_NOFILE`, `RLIMIT_NPROC`, `RLIMIT_CORE` ...
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Soft limit.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    /// Hard limit.
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

/// The container runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct StartContainerResponse {
    /// When the program was executed, nanoseconds since the Unix epoch on the guest's clock.
    #[prost(int64, tag = "1")]
    pub started_unix_nanos: i64,
    /// Its process id in the guest.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
}

/// Names a container.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ContainerId {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Other limits for a container that runs.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct UpdateContainerRequest {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// As `ContainerConfig::memory_limit_bytes`.
    #[prost(uint64, tag = "2")]
    pub memory_limit_bytes: u64,
    /// As `ContainerConfig::cpu_limit_millis`.
    #[prost(uint64, tag = "3")]
    pub cpu_limit_millis: u64,
    /// As `ContainerConfig::cpu_request_millis`.
    #[prost(uint64, tag = "4")]
    pub cpu_request_millis: u64,
}

/// Sends a signal to a container's first process, or to all of its processes.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SignalContainerRequest {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Signal number, 1 to 31.
    #[prost(uint32, tag = "2")]
    pub signal: u32,
    /// Send to every process of the container.
    #[prost(bool, tag = "3")]
    pub all: bool,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Sent by a newer guest.
    Unspecified = 0,
    /// Being started.
    Creating = 1,
    /// Its program was executed and has not ended.
    Running = 2,
    /// Ended; kept until `RemoveContainer`.
    Exited = 3,
}

/// A container as the guest knows it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ContainerStatus {
    /// `ContainerConfig::id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `ContainerConfig::name`.
    #[prost(string, tag = "2")]
    pub name: String,
    /// A `ContainerState`.
    #[prost(enumeration = "ContainerState", tag = "3")]
    pub state: i32,
    /// When it started, nanoseconds since the Unix epoch; 0 before.
    #[prost(int64, tag = "4")]
    pub started_unix_nanos: i64,
    /// How it ended, once it has.
    #[prost(message, optional, tag = "5")]
    pub exit: Option<crate::ContainerExited>,
    /// Slot of its image disk.
    #[prost(uint32, tag = "6")]
    pub image_slot: u32,
    /// Bytes of output written so far: the end of its log.
    #[prost(uint64, tag = "7")]
    pub log_end_offset: u64,
}
