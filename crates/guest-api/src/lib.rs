//! The words that a host agent and the guest agent of one microVM exchange.
//!
//! Two parts. `preface` finds the start of a conversation in a byte stream that has no notion of a connection
//! (a virtio-serial port keeps bytes of earlier conversations). The rest are protobuf messages, written by hand
//! with prost's derive, that travel over gRPC once the preface was answered; `method` names the calls.
//!
//! Nothing here does I/O, reads a clock or draws a random number. Every message is built or parsed by the shells
//! (`host-agent`, `guest-agent`), and both treat what they receive as hostile: the limits are in `limit`.

mod container;
mod error;
mod event;
pub mod limit;
pub mod method;
mod pod;
pub mod preface;
mod stream;

pub use container::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Mount, ResourceLimit, SignalContainerRequest,
    StartContainerResponse, UpdateContainerRequest,
};
pub use error::{ErrorKind, GuestFault};
pub use event::{ContainerExited, ContainerStarted, Event, EventKind, EventsRequest};
pub use pod::{
    DiskSlot, DiskVolume, Empty, EmptyDirVolume, FilesVolume, HelloRequest, HelloResponse, HostPathVolume, HostPort,
    ImageDisk, NetworkConfig, NodeConfig, PodConfig, PodUid, PrepareRequest, Sysctl, TransportProtocol,
    UpdateVolumeRequest, Volume, VolumeFile, VolumeSource,
};
pub use stream::{
    AttachRequest, ConnectInput, ConnectInputKind, ConnectOutput, ConnectTarget, ContainerStats, ExecExited, ExecInput,
    ExecInputKind, ExecOutput, ExecOutputKind, ExecStart, LogChunk, LogStream, LogsRequest, StatsResponse,
    TerminalSize,
};

/// Version of this protocol. The guest agent is always the one that the host put into the initramfs, so the two
/// differ only after an upgrade of a host whose microVMs kept running; then the host decides what it still speaks.
pub const PROTOCOL_VERSION: u32 = 1;
