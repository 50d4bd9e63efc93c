//! The calls without streams of input, one function each.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use futures::Stream;
use isopod_guest_api::{
    ContainerConfig, ContainerId, DiskSlot, Empty, ErrorKind, Event, EventsRequest, HelloRequest, HelloResponse,
    LogChunk, LogsRequest, NodeConfig, PROTOCOL_VERSION, PodConfig, PodUid, PrepareRequest, SignalContainerRequest,
    StartContainerResponse, StatsResponse, UpdateContainerRequest, UpdateVolumeRequest,
};
use tonic::Status;

use crate::{agent::Agent, boot, container, disk, fault::Fault, start, stats};

/// What a call that streams answers with.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(crate) async fn hello(agent: Arc<Agent>, _: HelloRequest) -> Result<HelloResponse, Status> {
    let kernel_release = rustix::system::uname().release().to_string_lossy().into_owned();
    let pod_uids: Vec<String> = agent.tenants().uids().cloned().collect();
    Ok(HelloResponse {
        protocol_version: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: agent.epoch.load(Ordering::Relaxed),
        pod_uid: if let [only] = &pod_uids[..] { only.clone() } else { String::new() },
        pod_uids,
        containers: agent.containers().values().map(|container| container.status()).collect(),
        last_event_sequence: agent.events.newest(),
        kernel_release,
    })
}

pub(crate) async fn configure_pod(agent: Arc<Agent>, config: PodConfig) -> Result<Empty, Status> {
    agent.tenants().configure_pod(config)?;
    Ok(Empty {})
}

pub(crate) async fn configure_node(agent: Arc<Agent>, config: NodeConfig) -> Result<Empty, Status> {
    agent.tenants().configure_node(config)?;
    Ok(Empty {})
}

/// On its own, so that a host that leaves in the middle does not leave half a pod.
pub(crate) async fn remove_pod(agent: Arc<Agent>, request: PodUid) -> Result<Empty, Status> {
    let task = tokio::spawn(async move { container::end_pod(&agent, &request.uid).await });
    task.await.map_err(|error| Fault::new(ErrorKind::Internal, error.to_string()))??;
    Ok(Empty {})
}

pub(crate) async fn release_image(agent: Arc<Agent>, request: DiskSlot) -> Result<Empty, Status> {
    agent.tenants().images.release(request.slot)?;
    Ok(Empty {})
}

pub(crate) async fn prepare(agent: Arc<Agent>, request: PrepareRequest) -> Result<Empty, Status> {
    if !agent.tenants().is_vacant() {
        return Err(Fault::new(ErrorKind::AlreadyExists, "the guest is a pod's or a node's").into());
    }
    disk::mount_scratch(Some(request.scratch_slot))?;
    Ok(Empty {})
}

pub(crate) async fn update_volume(agent: Arc<Agent>, request: UpdateVolumeRequest) -> Result<Empty, Status> {
    let mut tenants = agent.tenants();
    tenants.pod(&request.pod_uid)?.0.update_volume(request)?;
    Ok(Empty {})
}

pub(crate) async fn start_container(
    agent: Arc<Agent>,
    config: ContainerConfig,
) -> Result<StartContainerResponse, Status> {
    let container = agent.admit(config)?;
    // On its own, so that a host that leaves in the middle does not leave half a container.
    let task = tokio::spawn({
        let (agent, container) = (agent.clone(), container.clone());
        async move { start::start(&agent, container).await }
    });
    let result = task.await.map_err(|error| Fault::new(ErrorKind::Internal, error.to_string()))?;
    if result.is_err() {
        let _ = container::remove(&container.config.id);
        agent.containers().remove(&container.config.id);
    }
    Ok(result?)
}

pub(crate) async fn signal_container(agent: Arc<Agent>, request: SignalContainerRequest) -> Result<Empty, Status> {
    agent.container(&request.id)?.signal(request.signal, request.all)?;
    Ok(Empty {})
}

pub(crate) async fn update_container(agent: Arc<Agent>, request: UpdateContainerRequest) -> Result<Empty, Status> {
    agent.container(&request.id)?.update(&request)?;
    Ok(Empty {})
}

pub(crate) async fn remove_container(agent: Arc<Agent>, request: ContainerId) -> Result<Empty, Status> {
    let container = agent.container(&request.id)?;
    if !container.has_exited() {
        return Err(Fault::invalid(format!("container {} has not exited", request.id)).into());
    }
    agent.containers().remove(&request.id);
    container::remove(&request.id).map_err(Fault::internal(format!("container {}", request.id)))?;
    Ok(Empty {})
}

pub(crate) async fn events(agent: Arc<Agent>, request: EventsRequest) -> Result<Answers<Event>, Status> {
    let stream = futures::stream::unfold((agent, request.after_sequence), |(agent, sequence)| async move {
        let event = agent.events.after(sequence).await?;
        let sequence = event.sequence;
        Some((Ok(event), (agent, sequence)))
    });
    Ok(Box::pin(stream))
}

pub(crate) async fn logs(agent: Arc<Agent>, request: LogsRequest) -> Result<Answers<LogChunk>, Status> {
    let container = agent.container(&request.container_id)?;
    let stream = futures::stream::unfold((container, request.offset), move |(container, offset)| async move {
        let chunk = container.log.next(offset, request.follow).await?;
        let offset = chunk.offset + chunk.data.len() as u64;
        Some((Ok(chunk), (container, offset)))
    });
    Ok(Box::pin(stream))
}

pub(crate) async fn stats(agent: Arc<Agent>, _: Empty) -> Result<StatsResponse, Status> {
    let running: Vec<String> = agent
        .containers()
        .iter()
        .filter(|(_, container)| container.running().is_ok())
        .map(|(id, _)| id.clone())
        .collect();
    Ok(stats::read(&running))
}

pub(crate) async fn reset(agent: Arc<Agent>, _: Empty) -> Result<Empty, Status> {
    let mut containers = agent.containers();
    if let Some(container) = containers.values().find(|container| !container.has_exited()) {
        return Err(Fault::invalid(format!("container {} has not exited", container.config.id)).into());
    }
    for id in containers.keys() {
        container::remove(id).map_err(Fault::internal(format!("container {id}")))?;
    }
    containers.clear();
    agent.tenants().vacate()?;
    agent.events.clear();
    Ok(Empty {})
}

pub(crate) async fn shutdown(agent: Arc<Agent>, _: Empty) -> Result<Empty, Status> {
    let containers: Vec<_> = agent.containers().values().cloned().collect();
    for container in containers {
        let _ = container.signal(9, true);
    }
    boot::restart_machine()
}
