//! What actors have done: each deed runs on its own and reports facts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use isopod_guest_api as api;
use isopod_planner::environment::{Place, limits, process};
use isopod_planner::pod::{Action, Fact, Observed, ProbeKind, Run, Signal};
use isopod_planner::refusals::container_refusals;
use isopod_planner::sizing::{FREE_STORAGE_GIB, need};
use isopod_planner::{Reason, volumes};
use isopod_types::Quantity;
use isopod_types::names::START_PATH_ANNOTATION;
use isopod_types::pod::{Container, Pod, Resources};
use jiff::Timestamp;
use serde_json::json;

use crate::actor::{Deed, Home, Message};
use crate::convert;
use crate::disks;
use crate::drivers::{LocalImage, Machine, MachineRequest, PullRequest};
use crate::guest::GuestError;
use crate::logs::Record;
use crate::node::{self, Identity, NodeState};
use crate::probes;

/// Bytes of fresh randomness for a guest.
const ENTROPY_BYTES: usize = 64;

/// Time between the end of a guest's channel and the end of its machine when both end together.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Begins an action; its end comes as a fact.
pub(crate) fn begin(deed: Deed, action: Action) {
    tokio::spawn(async move {
        match action {
            Action::StartMachine => start_machine(&deed).await,
            Action::DestroyMachine => destroy_machine(&deed).await,
            Action::PullImage { image } => pull(&deed, image).await,
            Action::Configure => configure(&deed).await,
            Action::StartContainer { container, attempt, .. } => start_container(&deed, &container, attempt).await,
            Action::Signal { container, signal, failed_probe } => {
                send_signal(&deed, &container, signal, failed_probe).await;
            }
            Action::Probe { container, attempt, kind, .. } => probes::probe(&deed, &container, attempt, kind).await,
            Action::Resize { container, attempt, resources } => resize(&deed, container, attempt, resources).await,
            Action::DeleteObject => {}
        }
    });
}

fn timestamp(unix_nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or_default()
}

async fn start_machine(deed: &Deed) {
    // What the pod's start will need of the API is fetched meanwhile.
    let begun = Instant::now();
    let (_, made, ()) =
        tokio::join!(open_usage(deed), obtain(deed), deed.sources.prepare(&deed.context.api, &deed.pod));
    match made {
        Ok(machine) => {
            let start_path = machine.start_path().to_owned();
            took(deed, &start_path, begun);
            // A node's machine has a history; nothing of it is this pod's.
            let known = if matches!(deed.home, Home::Node(_)) { machine.hello().last_event_sequence } else { 0 };
            watch_machine(deed, machine.clone(), known);
            deed.tell(Message::Machine(machine)).await;
            deed.fact(Fact::MachineUp { start_path: start_path.clone() }).await;
            note_start_path(deed, &start_path).await;
        }
        Err(error) => {
            let message = format!("{error:#}");
            close_usage(deed).await;
            deed.event(None, Reason::warning("FailedCreatePodSandBox", message.clone())).await;
            deed.fact(Fact::MachineFailed { message }).await;
        }
    }
}

/// A microVM, or a place on the pod's node.
async fn obtain(deed: &Deed) -> anyhow::Result<Arc<dyn Machine>> {
    let tier = match &deed.home {
        Home::Fargate(tier) => *tier,
        Home::Node(worker) => return worker.ready().await?.lodge(worker.lodging(&deed.pod, deed.address)).await,
    };
    let scratch_gib = i128::from(FREE_STORAGE_GIB) << 30;
    let needed = need(&deed.pod.spec, Quantity::ZERO);
    let request = MachineRequest {
        id: format!("{}-{}", deed.pod.metadata.uid, deed.machine_count),
        tier,
        address: deed.address,
        scratch_bytes: u64::try_from(needed.storage_bytes.max(scratch_gib)).unwrap_or(u64::MAX),
    };
    deed.context.drivers.start_machine(request).await
}

/// Says in the log how long a step of a pod's start took.
fn took(deed: &Deed, step: &str, begun: Instant) {
    let meta = &deed.pod.metadata;
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(pod = meta.name, namespace = meta.namespace, step, micros, "a step of a start");
}

async fn note_start_path(deed: &Deed, start_path: &str) {
    let meta = &deed.pod.metadata;
    let uri = format!("/api/v1/namespaces/{}/pods/{}", meta.namespace, meta.name);
    let patch = json!({"metadata": {"uid": meta.uid, "annotations": {START_PATH_ANNOTATION: start_path}}});
    if let Err(error) = deed.context.api.patch(&uri, &patch).await {
        tracing::debug!(%error, "start path not noted");
    }
}

/// Opens the usage record: billing begins when the microVM is asked for. Pods on worker nodes have none.
async fn open_usage(deed: &Deed) {
    let Home::Fargate(tier) = deed.home else { return };
    let needed = need(&deed.pod.spec, Quantity::ZERO);
    let record = node::usage_record(&deed.pod, tier, needed, &deed.context.host, deed.machine_count, Timestamp::now());
    if let Err(error) = deed.context.api.create("/apis/isopod.dev/v1alpha1/usagerecords", &record).await {
        tracing::error!(pod = %deed.pod.metadata.name, %error, "usage record not opened");
    }
}

/// Closes the usage record of the pod's newest microVM.
pub(crate) async fn close_usage(deed: &Deed) {
    if matches!(deed.home, Home::Node(_)) {
        return;
    }
    let name = node::usage_name(&deed.pod.metadata.uid, deed.machine_count);
    let uri = format!("/apis/isopod.dev/v1alpha1/usagerecords/{name}");
    if let Err(error) = deed.context.api.patch(&uri, &node::usage_end(Timestamp::now())).await {
        tracing::error!(pod = %deed.pod.metadata.name, %error, "usage record not closed");
    }
}

/// Watches a machine for its end and its guest for events.
pub(crate) fn watch_machine(deed: &Deed, machine: Arc<dyn Machine>, after_sequence: u64) {
    let (watcher, watched) = (deed.clone(), machine.clone());
    tokio::spawn(async move {
        let cause = watched.exited().await;
        // Whatever it left on this host goes, whether its end was asked for or not.
        if let Err(error) = watched.destroy().await {
            tracing::error!(error = format!("{error:#}"), "what a microVM left cannot be removed");
        }
        watcher.context.disks.release(&watcher.pod.metadata.uid);
        close_usage(&watcher).await;
        watcher.fact(Fact::MachineEnded { cause }).await;
    });
    let deed = deed.clone();
    tokio::spawn(async move {
        let mut events = match machine.events(after_sequence).await {
            Ok(events) => events,
            Err(error) => return lost(&deed, &machine, &error.to_string()).await,
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => pass_on(&deed, event).await,
                Err(error) => return lost(&deed, &machine, &error.to_string()).await,
            }
        }
        lost(&deed, &machine, "the event stream ended").await;
    });
}

/// A guest that cannot be heard any more cannot be trusted to be doing anything: its machine ends. Mostly it has ended
/// already, and its channel with it.
async fn lost(deed: &Deed, machine: &Arc<dyn Machine>, why: &str) {
    if tokio::time::timeout(LAST_WORDS, machine.exited()).await.is_ok() {
        return;
    }
    tracing::info!(pod = %deed.pod.metadata.name, why, "lost the guest agent; ending its microVM");
    if let Err(error) = machine.destroy().await {
        tracing::error!(error = format!("{error:#}"), "a microVM cannot be ended");
    }
}

async fn pass_on(deed: &Deed, event: api::Event) {
    if let Some(api::EventKind::Exited(exit)) = event.kind
        && let Some(fact) = exited(&exit)
    {
        deed.fact(fact).await;
    }
}

fn exited(exit: &api::ContainerExited) -> Option<Fact> {
    let (container, _) = convert::container_of(&exit.id)?;
    Some(Fact::Exited {
        container: container.to_owned(),
        code: exit.code,
        signal: i32::try_from(exit.signal).ok().filter(|signal| *signal != 0),
        oom_killed: exit.oom_killed,
        message: exit.termination_message.clone(),
        finished_at: timestamp(exit.finished_unix_nanos),
    })
}

/// What a guest's greeting says about the newest run of each container.
pub(crate) fn facts_of_hello(hello: &api::HelloResponse, observed: &Observed) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (name, runs) in &observed.containers {
        let Some(attempt) = runs.starts.checked_sub(1).filter(|_| !matches!(runs.run, Run::Idle | Run::Ended(_)))
        else {
            continue;
        };
        let id = convert::container_id(name, attempt);
        let status = hello.containers.iter().find(|status| status.id == id);
        match status.map(|status| (status, status.exit.as_ref())) {
            Some((_, Some(exit))) => facts.extend(exited(exit)),
            Some((status, None)) if status.started_unix_nanos > 0 => {
                facts.push(Fact::Started { container: name.clone(), started_at: timestamp(status.started_unix_nanos) });
            }
            _ => {
                let message = "the host agent was restarted before the container had started".to_owned();
                facts.push(Fact::StartFailed { container: name.clone(), code: 128, message });
            }
        }
    }
    facts
}

async fn destroy_machine(deed: &Deed) {
    let Some(machine) = &deed.machine else {
        return deed.fact(Fact::MachineEnded { cause: "there was none".into() }).await;
    };
    // Its end is reported by the task that watches it.
    if let Err(error) = machine.destroy().await {
        tracing::error!(error = format!("{error:#}"), "a microVM cannot be removed");
    }
}

async fn pull(deed: &Deed, image: String) {
    let containers: Vec<&Container> =
        deed.pod.spec.all_containers().filter(|container| container.image == image).collect();
    let Some(first) = containers.first() else { return };
    let docker_configs = deed.context.api.docker_configs(&deed.pod).await.unwrap_or_default();
    let request = PullRequest { image: image.clone(), policy: first.image_pull_policy.clone(), docker_configs };
    let begun = Instant::now();
    let name = first.name.clone();
    match deed.context.drivers.ensure_image(request).await {
        Ok(found) => {
            let text = if found.was_present {
                format!("Container image {image:?} already present on machine")
            } else {
                format!("Successfully pulled image {image:?} in {} ms", begun.elapsed().as_millis())
            };
            let id = found.id.clone();
            deed.tell(Message::Image(image.clone(), found)).await;
            deed.fact(Fact::ImageReady { image, id }).await;
            deed.event(Some(&name), Reason::normal("Pulled", text)).await;
        }
        Err(failure) => {
            let text = format!("Failed to pull image {image:?}: {}", failure.message);
            deed.event(Some(&name), Reason::warning("Failed", text)).await;
            deed.event(Some(&name), Reason::warning("Failed", format!("Error: {}", failure.reason))).await;
            let (reason, message) = (failure.reason.to_owned(), failure.message);
            deed.fact(Fact::ImageFailed { image, reason, message }).await;
        }
    }
}

/// Facts about a pod's place.
pub(crate) fn place(deed: &Deed) -> Place {
    let pod_ip = deed.address.to_string();
    match &deed.home {
        Home::Fargate(tier) => {
            let allocatable = [
                ("cpu".to_owned(), Quantity::from_milli(i128::from(tier.vcpu_millis))),
                ("memory".to_owned(), Quantity::from_units(i128::from(tier.memory_bytes()))),
            ];
            Place { host_ip: pod_ip.clone(), pod_ip, allocatable: allocatable.into() }
        }
        Home::Node(worker) => Place { pod_ip, host_ip: worker.address.to_string(), allocatable: worker.allocatable() },
    }
}

fn hostname(pod: &Pod) -> String {
    let name = pod.spec.hostname.clone().unwrap_or_else(|| pod.metadata.name.clone());
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

async fn configure(deed: &Deed) {
    let Some(machine) = deed.machine.clone() else { return };
    let config = match pod_config(deed, machine.as_ref()).await {
        Ok(config) => config,
        Err(message) => {
            deed.event(None, Reason::warning("FailedMount", message.clone())).await;
            return deed.fact(Fact::SetupFailed { reason: "FailedMount".into(), message }).await;
        }
    };
    let begun = Instant::now();
    // Images that are here already come into their slots meanwhile; `start_container` tells of failures.
    let attached = deed.images.iter().map(|(name, image)| machine.attach_image(slot(&deed.pod, name), image));
    let (configured, _) = tokio::join!(machine.configure(config), join_all(attached));
    match configured {
        Ok(()) => {
            took(deed, "configured", begun);
            deed.fact(Fact::SetUp).await;
        }
        Err(error) => {
            let message = error.to_string();
            // A guest that is gone, as that of a pod deleted meanwhile, is told of by whoever watches its machine.
            if error.kind().is_some() {
                deed.event(None, Reason::warning("FailedCreatePodSandBox", message.clone())).await;
            }
            deed.fact(Fact::SetupFailed { reason: "CreateContainerConfigError".into(), message }).await;
        }
    }
}

async fn pod_config(deed: &Deed, machine: &dyn Machine) -> Result<api::PodConfig, String> {
    let pod = &deed.pod;
    let sources = deed.sources.get(&deed.context.api, pod).await.map_err(|error| error.to_string())?;
    let contents = volumes::contents(pod, &sources, &place(deed)).map_err(|problem| problem.to_string())?;
    deed.sources.give_all(&contents);
    let disks = disks::attach(deed, machine, &contents).await?;
    let (nameservers, search, options) = convert::resolver(pod, &deed.context.cluster_dns);
    let mut entropy = vec![0; ENTROPY_BYTES];
    rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty()).map_err(|error| error.to_string())?;
    Ok(api::PodConfig {
        uid: pod.metadata.uid.clone(),
        hostname: hostname(pod),
        realtime_unix_nanos: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0),
        entropy: entropy.into(),
        network: Some(api::NetworkConfig {
            ipv4_address: deed.address.to_string(),
            nameservers,
            search,
            options,
            ..Default::default()
        }),
        hosts: convert::hosts(pod),
        host_ports: convert::host_ports(&pod.spec),
        volumes: convert::volumes(contents, &disks),
        fs_group: pod.spec.security_context.fs_group,
        sysctls: convert::sysctls(&pod.spec),
        ..Default::default()
    })
}

/// The slot of an image's disk: images of a pod have slots in the order of their containers.
fn slot(pod: &Pod, image: &str) -> u32 {
    let mut images: Vec<&str> = Vec::new();
    for container in pod.spec.all_containers() {
        if !images.contains(&container.image.as_str()) {
            images.push(&container.image);
        }
    }
    u32::try_from(images.iter().position(|other| *other == image).unwrap_or(0)).unwrap_or(0)
}

async fn start_container(deed: &Deed, name: &str, attempt: u32) {
    let Some(machine) = deed.machine.clone() else { return };
    let Some(spec) = deed.pod.spec.all_containers().find(|container| container.name == name) else { return };
    let is_ephemeral = deed.pod.spec.is_ephemeral(name);
    let config = match container_config(deed, spec, attempt).await {
        Ok(config) => config,
        Err(message) if is_ephemeral => return refuse(deed, name, "CreateContainerConfigError", message).await,
        Err(message) => {
            deed.event(Some(name), Reason::warning("Failed", format!("Error: {message}"))).await;
            return deed.fact(Fact::ConfigFailed { container: name.into(), message }).await;
        }
    };
    let (id, slot) = (config.id.clone(), config.image_slot);
    let image = deed.images.get(&spec.image).cloned().unwrap_or_default();
    let begun = Instant::now();
    let started = match machine.attach_image(slot, &image).await {
        Ok(()) => machine.start(config).await,
        Err(error) if is_ephemeral => {
            return refuse(deed, name, "CreateContainerError", format!("{error:#}")).await;
        }
        Err(error) => Err(GuestError::Lost(format!("{error:#}"))),
    };
    match started {
        // Its target ended meanwhile, or the guest has as many containers as it takes.
        Err(error) if is_ephemeral && may_pass(&error) => {
            refuse(deed, name, "CreateContainerError", error.to_string()).await;
        }
        Ok(answer) => {
            let started_at = timestamp(answer.started_unix_nanos);
            took(deed, "container started", begun);
            pump_logs(deed, machine, &id);
            let hooked = probes::post_start(deed, spec, attempt).await;
            deed.fact(Fact::Started { container: name.into(), started_at }).await;
            if !hooked {
                deed.fact(Fact::HookFailed { container: name.into(), attempt }).await;
            }
            deed.event(Some(name), Reason::normal("Created", format!("Created container: {name}"))).await;
            deed.event(Some(name), Reason::normal("Started", format!("Started container {name}"))).await;
        }
        Err(error) => {
            let message = error.to_string();
            deed.event(Some(name), Reason::warning("Failed", format!("Error: {message}"))).await;
            deed.fact(Fact::StartFailed { container: name.into(), code: start_code(&error), message }).await;
        }
    }
}

/// Tells that an ephemeral container could not be made; the rest of the pod goes on.
async fn refuse(deed: &Deed, name: &str, reason: &str, message: String) {
    deed.event(Some(name), Reason::warning("Failed", format!("Error: {message}"))).await;
    deed.fact(Fact::Refused { container: name.into(), reason: reason.into(), message }).await;
}

fn may_pass(error: &GuestError) -> bool {
    use api::ErrorKind::{LimitReached, NoSuchContainer, NotRunning};
    matches!(error.kind(), Some(NotRunning | NoSuchContainer | LimitReached))
}

/// Exit codes by which container runtimes tell why a program was not executed.
fn start_code(error: &GuestError) -> i32 {
    match error.kind() {
        Some(api::ErrorKind::CommandNotFound) => 127,
        Some(api::ErrorKind::PermissionDenied) => 126,
        _ => 128,
    }
}

async fn container_config(deed: &Deed, spec: &Container, attempt: u32) -> Result<api::ContainerConfig, String> {
    // The scheduler saw what Fargate refuses of the other containers.
    if matches!(deed.home, Home::Fargate(_)) && deed.pod.spec.is_ephemeral(&spec.name) {
        let refused = container_refusals(spec);
        if !refused.is_empty() {
            return Err(format!("Pod not supported on Fargate: {}", refused.join(", ")));
        }
    }
    let sources = deed.sources.get(&deed.context.api, &deed.pod).await.map_err(|error| error.to_string())?;
    let image = deed.images.get(&spec.image).cloned().unwrap_or_default();
    let process =
        process(&deed.pod, spec, &image.defaults, &sources, &place(deed)).map_err(|problem| problem.to_string())?;
    let mut config = convert::container(&deed.pod, spec, attempt, slot(&deed.pod, &spec.image), process)?;
    let target = &spec.target_container_name;
    if !target.is_empty() {
        config.target = convert::container_id(target, newest_attempt(deed, target));
    }
    Ok(config)
}

/// Gives a running container other limits.
async fn resize(deed: &Deed, container: String, attempt: u32, resources: Resources) {
    let Some(machine) = &deed.machine else { return };
    let amounts = limits(&resources);
    let request = api::UpdateContainerRequest {
        id: convert::container_id(&container, attempt),
        memory_limit_bytes: amounts.memory_limit_bytes,
        cpu_limit_millis: amounts.cpu_limit_millis,
        cpu_request_millis: amounts.cpu_request_millis,
    };
    match machine.update(request).await {
        Ok(()) => deed.fact(Fact::Resized { container, attempt, resources }).await,
        Err(error) => {
            let message = error.to_string();
            let text = format!("Pod resize error: container {container}: {message}");
            deed.event(Some(&container), Reason::warning("ResizeError", text)).await;
            deed.fact(Fact::ResizeFailed { container, attempt, message }).await;
        }
    }
}

async fn send_signal(deed: &Deed, name: &str, signal: Signal, failed_probe: Option<ProbeKind>) {
    let Some(machine) = &deed.machine else { return };
    let Some(spec) = deed.pod.spec.all_containers().find(|container| container.name == name) else { return };
    let attempt = newest_attempt(deed, name);
    let number = match signal {
        Signal::Kill => 9,
        Signal::Stop => stop_signal(spec, deed.images.get(&spec.image)),
    };
    if signal == Signal::Stop {
        let text = match failed_probe {
            Some(kind) => format!("Container {name} failed {} probe, will be restarted", kind.as_str()),
            None => format!("Stopping container {name}"),
        };
        deed.event(Some(name), Reason::normal("Killing", text)).await;
        probes::pre_stop(deed, spec, attempt).await;
    }
    let id = convert::container_id(name, attempt);
    if let Err(error) = machine.signal(&id, number).await {
        tracing::debug!(%error, id, "signal not sent; the container may have ended");
    }
}

/// The signal that asks a container to stop: its own, or its image's.
fn stop_signal(container: &Container, image: Option<&LocalImage>) -> u32 {
    let own = Some(container.lifecycle.stop_signal.as_str()).filter(|signal| !signal.is_empty());
    convert::signal_number(own.or(image.map(|image| image.stop_signal.as_str())).unwrap_or_default())
}

fn newest_attempt(deed: &Deed, name: &str) -> u32 {
    let face = deed.context.face(&deed.pod.metadata.uid);
    face.and_then(|face| face.runs.get(name).map(|(starts, _)| starts.saturating_sub(1))).unwrap_or(0)
}

/// Writes a container's output to its log until it ends.
pub(crate) fn pump_logs(deed: &Deed, machine: Arc<dyn Machine>, id: &str) {
    let (deed, id) = (deed.clone(), id.to_owned());
    tokio::spawn(async move {
        if let Err(error) = copy_logs(&deed, machine.as_ref(), &id).await {
            tracing::debug!(%error, id, "a log ended early");
        }
    });
}

async fn copy_logs(deed: &Deed, machine: &dyn Machine, id: &str) -> anyhow::Result<()> {
    let Some((name, attempt)) = convert::container_of(id) else { return Ok(()) };
    let (mut writer, end) = deed.context.logs.writer(&deed.pod.metadata.uid, name, attempt)?;
    let request = api::LogsRequest { container_id: id.to_owned(), offset: end, follow: true };
    let mut chunks = machine.logs(request).await?;
    let mut expected = end;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if chunk.offset > expected {
            let text = format!("[isopod: {} bytes of output were lost]\n", chunk.offset - expected);
            writer.append(&Record {
                offset: expected,
                unix_nanos: chunk.unix_nanos,
                stderr: true,
                data: Bytes::from(text),
            })?;
        }
        expected = chunk.offset + chunk.data.len() as u64;
        let stderr = chunk.stream() == api::LogStream::Stderr;
        writer.append(&Record { offset: chunk.offset, unix_nanos: chunk.unix_nanos, stderr, data: chunk.data })?;
    }
    Ok(())
}

/// Writes the status of a pod's own node, whose nth machine this is, and that its room is free when its machine is gone for good.
pub(crate) async fn write_node(deed: &Deed, state: NodeState, machines: u32) -> Result<(), kube::Error> {
    let Home::Fargate(tier) = deed.home else { return Ok(()) };
    let name = &deed.pod.spec.node_name;
    let hostname = name.trim_start_matches("fargate-");
    let facts = deed.context.drivers.facts();
    let identity = Identity::of_pod(&deed.pod.metadata.uid, machines);
    let about = (&facts, &identity);
    let status = node::node_status(tier, &deed.address.to_string(), hostname, about, state, Timestamp::now());
    deed.context.api.patch(&format!("/api/v1/nodes/{name}/status"), &status).await?;
    if state == NodeState::Released {
        deed.context.api.patch(&format!("/api/v1/nodes/{name}"), &node::released()).await?;
    }
    Ok(())
}
