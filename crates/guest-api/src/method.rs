//! The calls: path, direction of the streams, and messages. Both shells take the paths from here.

/// gRPC service name.
pub const SERVICE: &str = "isopod.guest.v1.Guest";

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $route:literal;)+) => {
        $($(#[$doc])* pub const $name: &str = concat!("/isopod.guest.v1.Guest/", $route);)+
        /// Every path above.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

methods! {
    /// `HelloRequest` -> `HelloResponse`. First call of a conversation.
    HELLO = "Hello";
    /// `PodConfig` -> `Empty`. Once per guest; the same configuration again is accepted, another one is refused.
    CONFIGURE_POD = "ConfigurePod";
    /// `NodeConfig` -> `Empty`. Once per guest, instead of a pod that has the machine to itself.
    CONFIGURE_NODE = "ConfigureNode";
    /// `PodUid` -> `Empty`. Kills what runs of a shared pod and forgets it: containers, volumes, namespaces, address.
    REMOVE_POD = "RemovePod";
    /// `DiskSlot` -> `Empty`. Unmounts an image that no container uses, so that another can take the slot.
    RELEASE_IMAGE = "ReleaseImage";
    /// `PrepareRequest` -> `Empty`. Mounts the scratch disk of a guest that is nobody's yet.
    PREPARE = "Prepare";
    /// `UpdateVolumeRequest` -> `Empty`. Replaces the files of a volume in one step.
    UPDATE_VOLUME = "UpdateVolume";
    /// `ContainerConfig` -> `StartContainerResponse`.
    START_CONTAINER = "StartContainer";
    /// `SignalContainerRequest` -> `Empty`.
    SIGNAL_CONTAINER = "SignalContainer";
    /// `UpdateContainerRequest` -> `Empty`. Gives a running container other limits; less memory than it uses is refused.
    UPDATE_CONTAINER = "UpdateContainer";
    /// `ContainerId` -> `Empty`. Forgets an exited container: its writable layer, its log ring, its name.
    REMOVE_CONTAINER = "RemoveContainer";
    /// `EventsRequest` -> stream of `Event`.
    EVENTS = "Events";
    /// `LogsRequest` -> stream of `LogChunk`.
    LOGS = "Logs";
    /// stream of `ExecInput` -> stream of `ExecOutput`. The first input is `ExecInputKind::Start`.
    EXEC = "Exec";
    /// stream of `ExecInput` -> stream of `ExecOutput`. The first input is `ExecInputKind::Attach`.
    ATTACH = "Attach";
    /// stream of `ConnectInput` -> stream of `ConnectOutput`. The first input is `ConnectInputKind::Port`.
    CONNECT = "Connect";
    /// `Empty` -> `StatsResponse`.
    STATS = "Stats";
    /// `Empty` -> `Empty`. Makes the guest nobody's again, with no container, volume, disk or address: for machines that went
    /// through a pod's start once so that the next one is quick. Refused while a container runs.
    RESET = "Reset";
    /// `Empty` -> `Empty`. Kills every container, syncs the scratch disk and powers the machine off.
    SHUTDOWN = "Shutdown";
}
