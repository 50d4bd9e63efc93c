//! Cells of pods: the Status column sums up phase, conditions and container states (facts, section 2).

use serde_json::{Value, json};

use super::age;
use super::cells::{Context, NONE};
use crate::walk;

/// One cell.
pub(super) fn cell(context: &Context<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Ready" => {
            let summary = Summary::of(context.object);
            format!("{}/{}", summary.ready, summary.total).into()
        }
        "Status" => Summary::of(context.object).reason.into(),
        "Restarts" => Summary::of(context.object).restarts.text(context).into(),
        "IP" => match context.items("status.podIPs").first() {
            Some(first) => walk::text(first, &["ip"]).into(),
            None => context.text_or("status.podIP", NONE),
        },
        "Node" => context.text_or("spec.nodeName", NONE),
        "Nominated Node" => context.text_or("status.nominatedNodeName", NONE),
        "Readiness Gates" => readiness_gates(context).into(),
        _ => return None,
    })
}

/// Marks rows of pods that have ended, so that kubectl can leave them out.
pub(super) fn row_conditions(object: &Value) -> Option<Value> {
    let phase = walk::text(object, &["status", "phase"]);
    let ended = phase == "Succeeded" || phase == "Failed";
    ended.then(|| {
        let message = "The pod has completed its execution";
        json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}])
    })
}

fn readiness_gates(context: &Context<'_>) -> String {
    let gates = context.items("spec.readinessGates");
    let holds = |gate: &&Value| {
        let wanted = walk::text(gate, &["conditionType"]);
        let found = context.items("status.conditions").iter().find(|found| walk::text(found, &["type"]) == wanted);
        found.is_some_and(|found| walk::text(found, &["status"]) == "True")
    };
    match gates.len() {
        0 => NONE.into(),
        total => format!("{}/{total}", gates.iter().filter(holds).count()),
    }
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let containers = walk::items(pod, &["spec", "containers"]).len();
        let sidecars = walk::items(pod, &["spec", "initContainers"]).iter().filter(|init| is_sidecar(init)).count();
        let reason = match walk::text(pod, &["status", "reason"]) {
            "" => walk::text(pod, &["status", "phase"]),
            reason => reason,
        };
        let mut summary =
            Self { reason: reason.into(), ready: 0, total: containers + sidecars, restarts: Restarts::default() };
        if condition(pod, "PodScheduled").is_some_and(|found| walk::text(found, &["reason"]) == "SchedulingGated") {
            summary.reason = "SchedulingGated".into();
        }
        let initializing = summary.init_containers(pod);
        if !initializing || is_true(pod, "Initialized") {
            summary.containers(pod);
        }
        summary.deletion(pod);
        summary
    }

    /// Whether some init container is still to finish.
    fn init_containers(&mut self, pod: &Value) -> bool {
        let specs = walk::items(pod, &["spec", "initContainers"]);
        let (mut all, mut of_sidecars) = (Restarts::default(), Restarts::default());
        for (at, status) in walk::items(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            let spec = specs.iter().find(|spec| spec.get("name") == status.get("name"));
            let sidecar = spec.is_some_and(is_sidecar);
            all.add(status);
            if sidecar {
                of_sidecars.add(status);
            }
            if is_terminated_well(status) {
                continue;
            }
            if sidecar && status.get("started") == Some(&Value::Bool(true)) {
                self.ready += usize::from(is_ready(status));
                continue;
            }
            self.reason = init_reason(status, at, specs.len());
            // What ran before the pod was initialized counts only while it is not.
            self.restarts = if is_true(pod, "Initialized") { of_sidecars } else { all };
            return true;
        }
        self.restarts = of_sidecars;
        false
    }

    fn containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in walk::items(pod, &["status", "containerStatuses"]).iter().rev() {
            self.restarts.add(status);
            if let Some(reason) = stopped_reason(status) {
                self.reason = reason;
            } else if is_ready(status) && state(status, "running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if is_true(pod, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }

    fn deletion(&mut self, pod: &Value) {
        if walk::at(pod, &["metadata", "deletionTimestamp"]).is_none() {
            return;
        }
        let ended = ["Succeeded", "Failed"].contains(&walk::text(pod, &["status", "phase"]));
        if walk::text(pod, &["status", "reason"]) == "NodeLost" {
            self.reason = "Unknown".into();
        } else if !ended {
            self.reason = "Terminating".into();
        }
    }
}

/// How often containers were started again.
#[derive(Default)]
struct Restarts {
    count: i64,
    /// End of the latest run that was followed by a restart.
    last_end: String,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status.get("restartCount").and_then(Value::as_i64).unwrap_or_default();
        let finished = walk::text(status, &["lastState", "terminated", "finishedAt"]);
        if finished > self.last_end.as_str() {
            self.last_end = finished.into();
        }
    }

    fn text(&self, context: &Context<'_>) -> String {
        if self.count == 0 || self.last_end.is_empty() {
            return self.count.to_string();
        }
        format!("{} ({} ago)", self.count, age::since(&self.last_end, context.now))
    }
}

fn is_sidecar(container: &Value) -> bool {
    walk::text(container, &["restartPolicy"]) == "Always"
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&Value::Bool(true))
}

fn state<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    walk::at(status, &["state", name])
}

fn code(terminated: &Value, name: &str) -> i64 {
    terminated.get(name).and_then(Value::as_i64).unwrap_or_default()
}

fn is_terminated_well(status: &Value) -> bool {
    state(status, "terminated").is_some_and(|terminated| code(terminated, "exitCode") == 0)
}

/// `OOMKilled`, or `Signal:n`, or `ExitCode:n`.
fn terminated_reason(terminated: &Value) -> String {
    match (walk::text(terminated, &["reason"]), code(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", code(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

/// Why a container does not run; none when it does.
fn stopped_reason(status: &Value) -> Option<String> {
    if let Some(waiting) = state(status, "waiting")
        && !walk::text(waiting, &["reason"]).is_empty()
    {
        return Some(walk::text(waiting, &["reason"]).into());
    }
    state(status, "terminated").map(terminated_reason)
}

fn init_reason(status: &Value, at: usize, total: usize) -> String {
    let waiting = state(status, "waiting").map_or("", |waiting| walk::text(waiting, &["reason"]));
    match state(status, "terminated") {
        Some(terminated) => format!("Init:{}", terminated_reason(terminated)),
        None if !["", "PodInitializing"].contains(&waiting) => format!("Init:{waiting}"),
        None => format!("Init:{at}/{total}"),
    }
}

fn condition<'a>(pod: &'a Value, ty: &str) -> Option<&'a Value> {
    walk::items(pod, &["status", "conditions"]).iter().find(|found| walk::text(found, &["type"]) == ty)
}

fn is_true(pod: &Value, ty: &str) -> bool {
    condition(pod, ty).is_some_and(|found| walk::text(found, &["status"]) == "True")
}
