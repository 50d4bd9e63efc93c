//! The pod: greeting, identity, network, volumes and disks.

use bytes::Bytes;

/// No arguments, or nothing to say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Empty {}

/// First call of a conversation.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HelloRequest {
    /// `PROTOCOL_VERSION` of the host.
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
}

/// What a host needs to adopt a guest that it did not start.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HelloResponse {
    /// `PROTOCOL_VERSION` of the guest.
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// Version of the guest agent's package.
    #[prost(string, tag = "2")]
    pub agent_version: String,
    /// Conversations that this guest has had, this one included. Grows by one per conversation.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// UID of the pod, empty until `ConfigurePod`.
    #[prost(string, tag = "4")]
    pub pod_uid: String,
    /// Every container that is running or not yet removed, by id.
    #[prost(message, repeated, tag = "5")]
    pub containers: Vec<crate::ContainerStatus>,
    /// Sequence number of the newest event, 0 if there was none.
    #[prost(uint64, tag = "6")]
    pub last_event_sequence: u64,
    /// Release of the guest's kernel.
    #[prost(string, tag = "7")]
    pub kernel_release: String,
    /// UIDs of all pods of a guest that is a node of many, sorted.
    #[prost(string, repeated, tag = "8")]
    pub pod_uids: Vec<String>,
}

/// What can be done for a pod before it is known which.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct PrepareRequest {
    /// Slot of the scratch disk.
    #[prost(uint32, tag = "1")]
    pub scratch_slot: u32,
}

/// Makes a guest a node that many pods share. Pods then come with `PodConfig::shared` and go with `RemovePod`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NodeConfig {
    /// Host name of the node.
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// As in `PodConfig`.
    #[prost(int64, tag = "2")]
    pub realtime_unix_nanos: i64,
    /// As in `PodConfig`.
    #[prost(bytes = "bytes", tag = "3")]
    pub entropy: Bytes,
    /// The node's address, through which its pods' traffic goes as well.
    #[prost(message, optional, tag = "4")]
    pub network: Option<NetworkConfig>,
    /// Slot of the writable ext4 disk of the node and all its pods; none: memory.
    #[prost(uint32, optional, tag = "5")]
    pub scratch_slot: Option<u32>,
}

/// Names a pod.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PodUid {
    /// `PodConfig::uid`.
    #[prost(string, tag = "1")]
    pub uid: String,
}

/// Names a disk slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct DiskSlot {
    /// Slot that `Machine::attach_disk` was given.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
}

/// A pod and what its guest is to be for it. Nothing of it is baked into a template.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PodConfig {
    /// UID of the pod.
    #[prost(string, tag = "1")]
    pub uid: String,
    /// Host name of the pod.
    #[prost(string, tag = "2")]
    pub hostname: String,
    /// Time now, nanoseconds since the Unix epoch. 0 leaves the clock alone.
    #[prost(int64, tag = "3")]
    pub realtime_unix_nanos: i64,
    /// Fresh random bytes for the kernel's generator: clones of one template share its state. At least 32.
    #[prost(bytes = "bytes", tag = "4")]
    pub entropy: Bytes,
    /// The pod's address; none: loopback only.
    #[prost(message, optional, tag = "5")]
    pub network: Option<NetworkConfig>,
    /// Lines appended to the pod's `/etc/hosts` after the loopback entries and the pod's own.
    #[prost(string, repeated, tag = "6")]
    pub hosts: Vec<String>,
    /// Volumes that containers may mount.
    #[prost(message, repeated, tag = "7")]
    pub volumes: Vec<Volume>,
    /// Read-only disks to mount now rather than at the first container that names them.
    #[prost(message, repeated, tag = "8")]
    pub images: Vec<ImageDisk>,
    /// Slot of the writable ext4 disk for the containers' own layers and emptyDir volumes; none: memory.
    #[prost(uint32, optional, tag = "9")]
    pub scratch_slot: Option<u32>,
    /// Size limit of `/dev/shm` in bytes; 0: 64 MiB.
    #[prost(uint64, tag = "10")]
    pub shm_size_bytes: u64,
    /// Group that owns emptyDir and file volumes (`securityContext.fsGroup`).
    #[prost(uint32, optional, tag = "11")]
    pub fs_group: Option<u32>,
    /// The guest is a node of many: the pod gets namespaces of its own. Otherwise the whole machine becomes the pod's.
    #[prost(bool, tag = "12")]
    pub shared: bool,
    /// A shared pod that uses its node's network and host name (`hostNetwork`); `network` only names it then.
    #[prost(bool, tag = "13")]
    pub host_network: bool,
    /// Ports of the node that lead to a shared pod.
    #[prost(message, repeated, tag = "14")]
    pub host_ports: Vec<HostPort>,
    /// Kernel parameters, set before anything of the pod runs.
    #[prost(message, repeated, tag = "15")]
    pub sysctls: Vec<Sysctl>,
}

/// A kernel parameter.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Sysctl {
    /// Name with dots between its parts; a slash stands for a dot in a part.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value, as written.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A port of the node that leads to a pod.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HostPort {
    /// TCP or UDP.
    #[prost(enumeration = "TransportProtocol", tag = "1")]
    pub protocol: i32,
    /// IPv4 address of the node; `0.0.0.0` stands for all.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Port of the node, 1 to 65535.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// Port of the pod, 1 to 65535.
    #[prost(uint32, tag = "4")]
    pub pod_port: u32,
}

/// How a port is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum TransportProtocol {
    /// Not said.
    Unspecified = 0,
    /// TCP.
    Tcp = 1,
    /// UDP.
    Udp = 2,
}

/// A pod's network, always routed: a host route to the gateway, the default route through it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NetworkConfig {
    /// MAC address, six bytes as `52:54:00:12:34:56`. Empty keeps the device's.
    #[prost(string, tag = "1")]
    pub mac: String,
    /// IPv4 address of the pod.
    #[prost(string, tag = "2")]
    pub ipv4_address: String,
    /// Prefix length of the address, usually 32.
    #[prost(uint32, tag = "3")]
    pub prefix_length: u32,
    /// Gateway, usually 169.254.1.1.
    #[prost(string, tag = "4")]
    pub gateway: String,
    /// MTU in bytes; 0 keeps the device's.
    #[prost(uint32, tag = "5")]
    pub mtu: u32,
    /// `nameserver` lines of resolv.conf.
    #[prost(string, repeated, tag = "6")]
    pub nameservers: Vec<String>,
    /// `search` words of resolv.conf.
    #[prost(string, repeated, tag = "7")]
    pub search: Vec<String>,
    /// `options` words of resolv.conf.
    #[prost(string, repeated, tag = "8")]
    pub options: Vec<String>,
}

/// One volume of the pod.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Volume {
    /// Name, unique in the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it is made of.
    #[prost(oneof = "VolumeSource", tags = "2, 3, 4, 5")]
    pub source: Option<VolumeSource>,
}

/// What a volume is made of.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum VolumeSource {
    /// An empty directory that lives as long as the pod.
    #[prost(message, tag = "2")]
    EmptyDir(EmptyDirVolume),
    /// Files that the host sent: ConfigMap, Secret, downward API, projected.
    #[prost(message, tag = "3")]
    Files(FilesVolume),
    /// A path of the node, which outlives the pod.
    #[prost(message, tag = "4")]
    HostPath(HostPathVolume),
    /// A writable disk with an ext4 file system.
    #[prost(message, tag = "5")]
    Disk(DiskVolume),
}

/// A path of the node. What is not in `/dev`, `/proc` or `/sys` is on the node's disk.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HostPathVolume {
    /// Absolute path, without `..`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// `hostPath.type`: what must be there, or is made.
    #[prost(string, tag = "2")]
    pub kind: String,
}

/// A disk of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct DiskVolume {
    /// Slot that `Machine::attach_disk` was given.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Mount it read-only.
    #[prost(bool, tag = "2")]
    pub read_only: bool,
}

/// An empty directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct EmptyDirVolume {
    /// In memory (tmpfs) rather than on the scratch disk.
    #[prost(bool, tag = "1")]
    pub memory: bool,
    /// Size limit in bytes; 0: none. Enforced by the file system for memory volumes only.
    #[prost(uint64, tag = "2")]
    pub size_limit_bytes: u64,
}

/// Files laid out in the kubelet's way: a timestamped directory, `..data` pointing at it, links to that.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FilesVolume {
    /// The files.
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<VolumeFile>,
}

/// One file of a volume.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct VolumeFile {
    /// Path relative to the volume; neither absolute nor with `..`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Content.
    #[prost(bytes = "bytes", tag = "2")]
    pub content: Bytes,
    /// Permission bits, such as 0o644.
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "5")]
    pub gid: u32,
}

/// An image disk in a slot.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ImageDisk {
    /// Slot that `Machine::attach_disk` was given.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Name of the image, for messages only.
    #[prost(string, tag = "2")]
    pub image_id: String,
}

/// Replaces the files of a volume in one step: readers see the old set or the new one.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct UpdateVolumeRequest {
    /// Name of a `Files` volume.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The new files, all of them.
    #[prost(message, optional, tag = "2")]
    pub files: Option<FilesVolume>,
    /// UID of the pod; empty: the only one.
    #[prost(string, tag = "3")]
    pub pod_uid: String,
}
