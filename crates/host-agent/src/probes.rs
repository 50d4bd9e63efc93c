//! Probes and lifecycle hooks: does what a handler says, at the pod's own address, and tells how it went. It decides nothing;
//! answers are hostile and read within limits.

use std::time::Duration;

use isopod_guest_api as api;
use isopod_planner::Reason;
use isopod_planner::pod::{Fact, ProbeKind, Thresholds};
use isopod_types::pod::Container;
use isopod_types::probe::{ExecAction, GrpcAction, Handler, HttpGetAction, PortRef};

use crate::actor::Deed;
use crate::convert;
use crate::dial::{self, Target};
use crate::drivers::Machine;
use crate::guest::{ExecOutput, ExecSession};

/// Bytes of a command's output that are kept for the event.
const OUTPUT_BYTES: usize = 10 << 10;

/// Longest time for a hook that has no limit of its own: the longest grace that anybody should need.
const HOOK_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes a probe and reports what it found.
pub(crate) async fn probe(deed: &Deed, name: &str, attempt: u32, kind: ProbeKind) {
    let Some(container) = find(deed, name) else { return };
    let Some(probe) = kind.of(container) else { return };
    let limit = Duration::from_secs(u64::try_from(probe.timeout_seconds.max(1)).unwrap_or(1));
    let found = handle(deed, container, attempt, &probe.handler, limit).await;
    if let Err(why) = &found {
        let title = match kind {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        };
        deed.event(Some(name), Reason::warning("Unhealthy", format!("{title} probe failed: {why}"))).await;
    }
    let (container, good, thresholds) = (name.to_owned(), found.is_ok(), Thresholds::of(probe));
    deed.fact(Fact::Probed { container, attempt, kind, good, thresholds }).await;
}

/// Runs the hook after a container's start; false when it failed.
pub(crate) async fn post_start(deed: &Deed, container: &Container, attempt: u32) -> bool {
    let Some(hook) = &container.lifecycle.post_start else { return true };
    run_hook(deed, container, attempt, hook, HOOK_TIMEOUT, "FailedPostStartHook", "PostStartHook").await
}

/// Runs the hook before a container's stop signal, which comes after it in any case.
pub(crate) async fn pre_stop(deed: &Deed, container: &Container, attempt: u32) {
    let Some(hook) = &container.lifecycle.pre_stop else { return };
    let grace = deed.pod.metadata.deletion_grace_period_seconds.or(deed.pod.spec.termination_grace_period_seconds);
    let limit = Duration::from_secs(u64::try_from(grace.unwrap_or(30)).unwrap_or(0));
    run_hook(deed, container, attempt, hook, limit, "FailedPreStopHook", "PreStopHook").await;
}

async fn run_hook(
    deed: &Deed,
    container: &Container,
    attempt: u32,
    hook: &Handler,
    limit: Duration,
    reason: &'static str,
    title: &str,
) -> bool {
    let Err(why) = handle(deed, container, attempt, hook, limit).await else { return true };
    deed.event(Some(&container.name), Reason::warning(reason, format!("{title} failed: {why}"))).await;
    false
}

fn find<'a>(deed: &'a Deed, name: &str) -> Option<&'a Container> {
    deed.pod.spec.all_containers().find(|container| container.name == name)
}

/// Does what a handler says, within a time. The error is for the user.
async fn handle(
    deed: &Deed,
    container: &Container,
    attempt: u32,
    handler: &Handler,
    limit: Duration,
) -> Result<(), String> {
    let machine = deed.machine.clone().ok_or("the microVM is gone")?;
    let done = async {
        let id = convert::container_id(&container.name, attempt);
        match handler {
            Handler { exec: Some(exec), .. } => run_command(machine.as_ref(), id, exec).await,
            Handler { http_get: Some(get), .. } => http_get(deed, machine.as_ref(), container, get).await,
            Handler { tcp_socket: Some(tcp), .. } => {
                dial::connect(machine.as_ref(), target(deed, container, &tcp.port)?).await.map(drop)
            }
            Handler { grpc: Some(grpc), .. } => check_health(deed, machine.as_ref(), grpc).await,
            Handler { sleep: Some(sleep), .. } => {
                tokio::time::sleep(Duration::from_secs(sleep.seconds)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    };
    let late = || match &handler.exec {
        Some(exec) => format!("command timed out: {:?} timed out after {}s", exec.command.join(" "), limit.as_secs()),
        None => format!("no answer within {}s", limit.as_secs()),
    };
    tokio::time::timeout(limit, done).await.unwrap_or_else(|_| Err(late()))
}

fn target(deed: &Deed, container: &Container, port: &PortRef) -> Result<Target, String> {
    let port = match port {
        PortRef::Number(port) => *port,
        PortRef::Name(name) => {
            let named = container.ports.iter().find(|port| port.name == *name).map(|port| port.container_port);
            // A number in quotes is a number.
            named.or_else(|| name.parse().ok()).ok_or_else(|| format!("the container has no port named {name:?}"))?
        }
    };
    Ok(Target { address: deed.address, port })
}

async fn run_command(machine: &dyn Machine, container_id: String, exec: &ExecAction) -> Result<(), String> {
    let start = api::ExecStart { container_id, argv: exec.command.clone(), ..api::ExecStart::default() };
    let session = machine.exec(start).await.map_err(|error| error.to_string())?;
    // Kept to the end: dropping the input closes it, dropping the output ends the command.
    let ExecSession { input: _input, mut output } = session;
    let mut said = Vec::new();
    while let Some(piece) = output.recv().await {
        match piece {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => {
                said.extend_from_slice(&bytes[..bytes.len().min(OUTPUT_BYTES - said.len())]);
            }
            ExecOutput::Exited { code: 0 } => return Ok(()),
            ExecOutput::Exited { code } => {
                let text = String::from_utf8_lossy(&said).trim_end().to_owned();
                return Err(if text.is_empty() { format!("command exited with {code}") } else { text });
            }
            ExecOutput::Failed(why) => return Err(why),
        }
    }
    Err("the command's end was not seen".into())
}

async fn http_get(
    deed: &Deed,
    machine: &dyn Machine,
    container: &Container,
    get: &HttpGetAction,
) -> Result<(), String> {
    let target = target(deed, container, &get.port)?;
    let mut request = http::Request::get(if get.path.is_empty() { "/" } else { &get.path })
        .header("user-agent", "kube-probe/1.36")
        .header("accept", "*/*")
        .header("connection", "close");
    if !get.http_headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
        request = request.header("host", format!("{}:{}", target.address, target.port));
    }
    for header in &get.http_headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(String::new()).map_err(|error| error.to_string())?;
    let status = dial::http_status(machine, target, get.scheme == "HTTPS", request).await?;
    match status {
        200..400 => Ok(()),
        _ => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn check_health(deed: &Deed, machine: &dyn Machine, grpc: &GrpcAction) -> Result<(), String> {
    let target = Target { address: deed.address, port: grpc.port };
    match dial::grpc_health(machine, target, grpc.service.as_deref().unwrap_or_default()).await? {
        dial::SERVING => Ok(()),
        status => Err(format!("service unhealthy (responded with {status})")),
    }
}
