//! The checks of the baseline and restricted standards, each a function of the pod.

use serde_json::Value;

use super::super::{items, text};
use super::{Level, Standard};
use crate::sysctls::SAFE;

/// Reason and detail.
type Finding = Option<(String, String)>;
type Check = fn(&Pod<'_>) -> Finding;

/// Minor version that brought it, and the check; by upstream's names in alphabetical order, as upstream lists findings.
const BASELINE: [(u32, Check); 12] = [
    (0, app_armor),
    (0, added_capabilities),
    (0, host_namespaces),
    (0, host_paths),
    (0, host_ports),
    (34, probe_hosts),
    (0, privileged),
    (0, proc_mount),
    (0, se_linux),
    (19, unconfined_seccomp),
    (0, sysctls),
    (0, windows_host_process),
];

const RESTRICTED: [(u32, Check); 6] = [
    (8, privilege_escalation),
    (22, dropped_capabilities),
    (0, volume_types),
    (0, run_as_non_root),
    (23, run_as_root_user),
    (19, seccomp),
];

/// Baseline checks that a restricted one of the same subject replaces: places in [`BASELINE`] and its first version.
const REPLACED: [(usize, u32); 3] = [(1, 22), (3, 0), (9, 19)];

/// Everything that is wrong with a pod.
pub(super) fn all(pod: &Value, standard: Standard) -> Vec<(String, String)> {
    let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"], standard };
    let is_restricted = standard.level == Level::Restricted;
    let replaced =
        |at: usize| is_restricted && REPLACED.iter().any(|(place, minor)| *place == at && standard.since(*minor));
    let baseline = BASELINE.iter().enumerate().filter(|(at, _)| standard.level >= Level::Baseline && !replaced(*at));
    let restricted = RESTRICTED.iter().filter(|_| is_restricted);
    let checks = baseline.map(|(_, check)| check).chain(restricted);
    checks.filter(|(minor, _)| standard.since(*minor)).filter_map(|(_, check)| check(&pod)).collect()
}

struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    standard: Standard,
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| items(spec, list))
    }

    /// Names of the containers for which something holds.
    fn names(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| holds(container)).map(|container| text(container, "name")).collect()
    }

    fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// Linux settings say nothing on Windows.
    fn is_windows(&self) -> bool {
        self.standard.since(25) && self.spec["os"]["name"] == "windows"
    }
}

fn finding(reason: &str, detail: String) -> Finding {
    Some((reason.to_owned(), detail))
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// `container "a"`, `containers "a", "b"`.
fn of_containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names.iter().copied()))
}

/// `pod and containers "a", "b"`, as far as each is guilty; empty when nobody is.
fn guilty(pod: bool, containers: &[&str]) -> String {
    let mut parts = Vec::new();
    if pod {
        parts.push("pod".to_owned());
    }
    if !containers.is_empty() {
        parts.push(of_containers(containers));
    }
    parts.join(" and ")
}

fn unique(mut values: Vec<&str>) -> Vec<&str> {
    values.sort_unstable();
    values.dedup();
    values
}

/// Somebody must not do something: reason, who, and what.
fn must_not(reason: &str, pod: bool, containers: &[&str], what: &str) -> Finding {
    let who = guilty(pod, containers);
    if who.is_empty() { None } else { finding(reason, format!("{who} {what}")) }
}

fn values<'a>(
    pod: &Pod<'a>,
    of: impl Fn(&'a Value) -> &'a Value,
    bad: impl Fn(&str) -> bool,
) -> (bool, Vec<&'a str>, Vec<&'a str>) {
    let is_bad = |context: &'a Value| of(context).as_str().filter(|value| bad(value));
    let own = is_bad(pod.context());
    let found: Vec<(&str, &str)> = pod
        .containers()
        .filter_map(|container| Some((text(container, "name"), is_bad(&container["securityContext"])?)))
        .collect();
    let all = own.into_iter().chain(found.iter().map(|(_, value)| *value)).collect();
    (own.is_some(), found.iter().map(|(name, _)| *name).collect(), unique(all))
}

// === baseline ===

fn app_armor(pod: &Pod<'_>) -> Finding {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let (own, containers, found) = values(pod, |context| &context["appArmorProfile"]["type"], |kind| !allowed(kind));
    let mut details = Vec::new();
    let who = guilty(own, &containers);
    if !who.is_empty() {
        details.push(format!("{who} must not set AppArmor profile type to {}", quoted(found)));
    }
    for (key, value) in pod.metadata["annotations"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let is_allowed = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        if key.starts_with(ANNOTATION) && !is_allowed {
            details.push(format!("annotation {key:?}={value:?}"));
        }
    }
    if details.is_empty() {
        None
    } else {
        finding(&plural("forbidden AppArmor profile", details.len()), details.join(", "))
    }
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add capabilities besides these, and what they add.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let bad = |container: &'a Value| {
        let list = items(&container["securityContext"]["capabilities"], "add");
        list.iter().filter_map(Value::as_str).filter(|name| !allowed.contains(name)).collect::<Vec<_>>()
    };
    let guilty: Vec<&'a Value> = pod.containers().filter(|container| !bad(container).is_empty()).collect();
    let names = guilty.iter().map(|container| text(container, "name")).collect();
    (names, unique(guilty.iter().flat_map(|container| bad(container)).collect()))
}

fn added_text(containers: &[&str], capabilities: Vec<&str>) -> String {
    let who = of_containers(containers);
    format!("{who} must not include {} in securityContext.capabilities.add", quoted(capabilities))
}

fn added_capabilities(pod: &Pod<'_>) -> Finding {
    let (containers, capabilities) = added(pod, &DEFAULT_CAPABILITIES);
    if containers.is_empty() {
        return None;
    }
    finding("non-default capabilities", added_text(&containers, capabilities))
}

fn host_namespaces(pod: &Pod<'_>) -> Finding {
    let fields = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let used: Vec<String> = fields.map(|field| format!("{field}=true")).collect();
    if used.is_empty() { None } else { finding("host namespaces", used.join(", ")) }
}

fn host_paths(pod: &Pod<'_>) -> Finding {
    let volumes = items(pod.spec, "volumes").iter().filter(|volume| !volume["hostPath"].is_null());
    let names: Vec<&str> = volumes.map(|volume| text(volume, "name")).collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", names.len());
    finding("hostPath volumes", format!("{word} {}", quoted(names)))
}

fn host_ports(pod: &Pod<'_>) -> Finding {
    let ports = |container: &Value| -> Vec<i64> {
        let list = items(container, "ports").iter().filter_map(|port| port["hostPort"].as_i64());
        list.filter(|port| *port != 0).collect()
    };
    let names = pod.names(|container| !ports(container).is_empty());
    let mut used: Vec<i64> = pod.containers().flat_map(ports).collect();
    used.sort_unstable();
    used.dedup();
    if names.is_empty() {
        return None;
    }
    let word = plural("hostPort", used.len());
    let listed = used.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let verb = if names.len() == 1 { "uses" } else { "use" };
    finding(&word, format!("{} {verb} {word} {listed}", of_containers(&names)))
}

fn probe_hosts(pod: &Pod<'_>) -> Finding {
    let hosts = |container: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|name| &container[name]);
        let hooks = ["postStart", "preStop"].map(|name| &container["lifecycle"][name]);
        let handlers = probes.into_iter().chain(hooks);
        let hosts =
            handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| text(&handler[kind], "host").to_owned()));
        hosts.filter(|host| !matches!(host.as_str(), "" | "127.0.0.1" | "::1")).collect()
    };
    let names = pod.names(|container| !hosts(container).is_empty());
    let mut used: Vec<String> = pod.containers().flat_map(hosts).collect();
    used.sort_unstable();
    used.dedup();
    if names.is_empty() {
        return None;
    }
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = plural("probe or lifecycle host", used.len());
    finding(&word, format!("{} {verb} {word} {}", of_containers(&names), quoted(used.iter().map(String::as_str))))
}

fn privileged(pod: &Pod<'_>) -> Finding {
    let names = pod.names(|container| container["securityContext"]["privileged"] == true);
    must_not("privileged", false, &names, "must not set securityContext.privileged=true")
}

fn proc_mount(pod: &Pod<'_>) -> Finding {
    let (_, names, found) = values(pod, |context| &context["procMount"], |kind| kind != "Default");
    let what = format!("must not set securityContext.procMount to {}", quoted(found));
    must_not("procMount", false, &names, &what)
}

fn se_linux(pod: &Pod<'_>) -> Finding {
    let types: &[&str] = match pod.standard.since(31) {
        true => &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"],
        false => &["", "container_t", "container_init_t", "container_kvm_t"],
    };
    let options = |context: &Value| context["seLinuxOptions"].clone();
    let bad_type = |options: &Value| !types.contains(&text(options, "type"));
    let is_bad = |context: &Value| {
        let options = options(context);
        bad_type(&options) || !text(&options, "user").is_empty() || !text(&options, "role").is_empty()
    };
    let names = pod.names(|container| is_bad(&container["securityContext"]));
    let own = is_bad(pod.context());
    let contexts = || pod.containers().map(|container| &container["securityContext"]).chain([pod.context()]);
    let (_, _, found) = values(pod, |context| &context["seLinuxOptions"]["type"], |kind| !types.contains(&kind));
    let mut wrong = Vec::new();
    if !found.is_empty() {
        wrong.push(format!("{} {}", plural("type", found.len()), quoted(found)));
    }
    for field in ["user", "role"] {
        if contexts().any(|context| !text(&context["seLinuxOptions"], field).is_empty()) {
            wrong.push(format!("{field} may not be set"));
        }
    }
    let what = format!("set forbidden securityContext.seLinuxOptions: {}", wrong.join("; "));
    must_not("seLinuxOptions", own, &names, &what)
}

fn unconfined_seccomp(pod: &Pod<'_>) -> Finding {
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let (own, names, found) = values(pod, |context| &context["seccompProfile"]["type"], |kind| !allowed(kind));
    let what = format!("must not set securityContext.seccompProfile.type to {}", quoted(found));
    must_not("seccompProfile", own, &names, &what)
}

fn sysctls(pod: &Pod<'_>) -> Finding {
    let allowed = |name: &str| SAFE.iter().any(|(known, minor)| *known == name && pod.standard.since(*minor));
    let all = items(pod.context(), "sysctls").iter().map(|sysctl| text(sysctl, "name"));
    let found: Vec<&str> = all.filter(|name| !allowed(name)).collect();
    if found.is_empty() { None } else { finding("forbidden sysctls", found.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>) -> Finding {
    let uses = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let names = pod.names(|container| uses(&container["securityContext"]));
    let what = "must not set securityContext.windowsOptions.hostProcess=true";
    must_not("hostProcess", uses(pod.context()), &names, what)
}

// === restricted ===

fn privilege_escalation(pod: &Pod<'_>) -> Finding {
    if pod.is_windows() {
        return None;
    }
    let names = pod.names(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    must_not(
        "allowPrivilegeEscalation != false",
        false,
        &names,
        "must set securityContext.allowPrivilegeEscalation=false",
    )
}

fn dropped_capabilities(pod: &Pod<'_>) -> Finding {
    if pod.is_windows() {
        return None;
    }
    let drops = |container: &Value| {
        items(&container["securityContext"]["capabilities"], "drop").iter().any(|name| name == "ALL")
    };
    let careless = pod.names(|container| !drops(container));
    let mut details = Vec::new();
    if !careless.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", of_containers(&careless)));
    }
    let (containers, capabilities) = added(pod, &["NET_BIND_SERVICE"]);
    if !containers.is_empty() {
        details.push(added_text(&containers, capabilities));
    }
    if details.is_empty() { None } else { finding("unrestricted capabilities", details.join("; ")) }
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volume_types(pod: &Pod<'_>) -> Finding {
    let bad = |volume: &Value| -> Option<String> {
        let mut sources = volume.as_object()?.keys().filter(|key| *key != "name");
        sources.find(|key| !VOLUMES.contains(&key.as_str())).cloned()
    };
    let found: Vec<(&str, String)> =
        items(pod.spec, "volumes").iter().filter_map(|volume| Some((text(volume, "name"), bad(volume)?))).collect();
    if found.is_empty() {
        return None;
    }
    let types = unique(found.iter().map(|(_, kind)| kind.as_str()).collect());
    let verb = if found.len() == 1 { "uses" } else { "use" };
    let detail = format!(
        "{} {} {verb} restricted volume {} {}",
        plural("volume", found.len()),
        quoted(found.iter().map(|(name, _)| *name)),
        plural("type", types.len()),
        quoted(types)
    );
    finding("restricted volume types", detail)
}

fn run_as_non_root(pod: &Pod<'_>) -> Finding {
    const REASON: &str = "runAsNonRoot != true";
    let of = |context: &Value| context["runAsNonRoot"].as_bool();
    let own = of(pod.context());
    let explicit = pod.names(|container| of(&container["securityContext"]) == Some(false));
    let silent = pod.names(|container| of(&container["securityContext"]).is_none());
    if !explicit.is_empty() || (own == Some(false) && !silent.is_empty()) || (own == Some(false) && explicit.is_empty())
    {
        return must_not(REASON, own == Some(false), &explicit, "must not set securityContext.runAsNonRoot=false");
    }
    if own.is_none() && !silent.is_empty() {
        let who = of_containers(&silent);
        return finding(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"));
    }
    None
}

fn run_as_root_user(pod: &Pod<'_>) -> Finding {
    let is_root = |context: &Value| context["runAsUser"] == 0;
    let names = pod.names(|container| is_root(&container["securityContext"]));
    must_not("runAsUser=0", is_root(pod.context()), &names, "must not set runAsUser=0")
}

fn seccomp(pod: &Pod<'_>) -> Finding {
    if pod.is_windows() {
        return None;
    }
    if let Some(found) = unconfined_seccomp(pod) {
        return Some(found);
    }
    let has = |context: &Value| !context["seccompProfile"]["type"].is_null();
    let silent = pod.names(|container| !has(&container["securityContext"]));
    if has(pod.context()) || silent.is_empty() {
        return None;
    }
    let who = of_containers(&silent);
    finding(
        "seccompProfile",
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""),
    )
}
