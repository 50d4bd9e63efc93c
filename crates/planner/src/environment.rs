//! What a container's process is given: program, arguments, variables, user, limits.
//!
//! Source: the kubelet's contract (order of variables, `$(NAME)` expansion, service variables, image defaults).

use std::collections::BTreeMap;

use isopod_types::Quantity;
use isopod_types::node::{ConfigMap, Secret, Service};
use isopod_types::pod::{Container, EnvVarSource, FieldRef, Pod, ResourceFieldRef, Resources, VolumeMount};

use crate::volumes::decode_base64;

/// What the image says about its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// Entry point.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// User.
    pub user: String,
}

/// Facts about a pod's place that fields and variables refer to.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Address of the pod.
    pub pod_ip: String,
    /// Address of the node.
    pub host_ip: String,
    /// What the node can give, for limits that are not stated.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Objects that containers and volumes refer to, fetched by the shell. None: there is no such object.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// Tokens by audience and lifetime in seconds.
    pub tokens: BTreeMap<(String, i64), String>,
    /// Services of the pod's namespace, and `default/kubernetes`.
    pub services: Vec<Service>,
}

/// What a container needs is missing or does not make sense; the text is for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigProblem(pub String);

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables in order.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// The image's user.
    pub user: String,
    /// User ID that wins over `user`.
    pub run_as_user: Option<u32>,
    /// Group ID that wins over the user's.
    pub run_as_group: Option<u32>,
    /// What it may use.
    pub limits: Limits,
}

/// What a container may use of memory and processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; 0: none.
    pub memory_limit_bytes: u64,
    /// Thousandths of a core; 0: none.
    pub cpu_limit_millis: u64,
    /// Thousandths of a core.
    pub cpu_request_millis: u64,
}

/// Resolves what to run for one container.
pub fn process(
    pod: &Pod,
    container: &Container,
    image: &ImageDefaults,
    sources: &Sources,
    place: &Place,
) -> Result<Process, ConfigProblem> {
    let env = variables(pod, container, image, sources, place)?;
    let lookup: BTreeMap<String, String> = env.iter().cloned().collect();
    let argv = argv(container, image, &lookup);
    if argv.is_empty() {
        return Err(ConfigProblem("no command specified: neither the image nor the container names a program".into()));
    }
    let security = &container.security_context;
    let run_as_user = security.run_as_user.or(pod.spec.security_context.run_as_user);
    let non_root = security.run_as_non_root.or(pod.spec.security_context.run_as_non_root).unwrap_or(false);
    check_non_root(non_root, run_as_user, &image.user)?;
    let cwd = if container.working_dir.is_empty() { &image.working_dir } else { &container.working_dir };
    Ok(Process {
        argv,
        env,
        cwd: cwd.clone(),
        user: image.user.clone(),
        run_as_user,
        run_as_group: security.run_as_group.or(pod.spec.security_context.run_as_group),
        limits: limits(&container.resources),
    })
}

/// What a container may use.
pub fn limits(resources: &Resources) -> Limits {
    let limit = |resource: &str| resources.limits.get(resource).copied().unwrap_or_default();
    Limits {
        memory_limit_bytes: u64::try_from(limit("memory").units_ceil()).unwrap_or(0),
        cpu_limit_millis: u64::try_from(limit("cpu").milli()).unwrap_or(0),
        cpu_request_millis: u64::try_from(resources.request("cpu").milli()).unwrap_or(0),
    }
}

fn check_non_root(non_root: bool, run_as_user: Option<u32>, image_user: &str) -> Result<(), ConfigProblem> {
    let root = match run_as_user {
        Some(user) => user == 0,
        None => matches!(image_user.split(':').next(), Some("" | "0" | "root") | None),
    };
    if non_root && root {
        return Err(ConfigProblem("container has runAsNonRoot and image will run as root".into()));
    }
    Ok(())
}

/// `command` replaces entry point and arguments of the image, `args` only the arguments.
fn argv(container: &Container, image: &ImageDefaults, env: &BTreeMap<String, String>) -> Vec<String> {
    let expand_all = |words: &[String]| words.iter().map(|word| expand(word, env)).collect::<Vec<_>>();
    let own_args = expand_all(&container.args);
    if !container.command.is_empty() {
        return [expand_all(&container.command), own_args].concat();
    }
    let args = if container.args.is_empty() { image.cmd.clone() } else { own_args };
    [image.entrypoint.clone(), args].concat()
}

/// Replaces `$(NAME)`; `$$(NAME)` stays as `$(NAME)`, unknown names stay as they are.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    expanded(text, |name| env.get(name).cloned())
}

fn expanded(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(escaped) = rest.strip_prefix("$$") {
            out.push('$');
            rest = escaped;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out + rest
}

/// The path in its volume that a mount shows; empty: the whole volume.
///
/// # Errors
/// [`ConfigProblem`] for a variable that is not there and for a path that leads out of the volume.
pub fn sub_path(mount: &VolumeMount, env: &BTreeMap<String, String>) -> Result<String, ConfigProblem> {
    let mut missing = None;
    let path = if mount.sub_path_expr.is_empty() {
        mount.sub_path.clone()
    } else {
        expanded(&mount.sub_path_expr, |name| {
            env.get(name).cloned().or_else(|| {
                missing = Some(name.to_owned());
                None
            })
        })
    };
    match missing {
        Some(name) => Err(ConfigProblem(format!("missing value for {name:?}"))),
        None if path.starts_with('/') => {
            Err(ConfigProblem(format!("error SubPath `{path}` must not be an absolute path")))
        }
        None if path.split('/').any(|part| part == "..") => {
            Err(ConfigProblem(format!("unable to provision SubPath `{path}`: must not contain '..'")))
        }
        None => Ok(path),
    }
}

/// Keeps the first place and the last value of each name.
fn set(env: &mut Vec<(String, String)>, name: String, value: String) {
    match env.iter_mut().find(|(existing, _)| *existing == name) {
        Some(entry) => entry.1 = value,
        None => env.push((name, value)),
    }
}

fn variables(
    pod: &Pod,
    container: &Container,
    image: &ImageDefaults,
    sources: &Sources,
    place: &Place,
) -> Result<Vec<(String, String)>, ConfigProblem> {
    let mut env: Vec<(String, String)> = Vec::new();
    for entry in &image.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(&mut env, name.into(), value.into());
    }
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in service_variables(pod, &sources.services) {
        known.insert(name.clone(), value.clone());
        set(&mut env, name, value);
    }
    for (name, value) in whole_objects(container, sources)? {
        known.insert(name.clone(), value.clone());
        set(&mut env, name, value);
    }
    for variable in &container.env {
        let value = match &variable.value_from {
            None => Some(expand(&variable.value, &known)),
            Some(source) => value_from(pod, container, source, sources, place)?,
        };
        if let Some(value) = value {
            known.insert(variable.name.clone(), value.clone());
            set(&mut env, variable.name.clone(), value);
        }
    }
    Ok(env)
}

/// The variables by which containers find services that existed when they started.
fn service_variables(pod: &Pod, services: &[Service]) -> Vec<(String, String)> {
    let links = pod.spec.enable_service_links.unwrap_or(true);
    let master = |s: &Service| s.metadata.namespace == "default" && s.metadata.name == "kubernetes";
    let relevant = services.iter().filter(|service| {
        let has_address = !matches!(service.spec.cluster_ip.as_str(), "" | "None");
        has_address && (master(service) || links && service.metadata.namespace == pod.metadata.namespace)
    });
    relevant.flat_map(one_service).collect()
}

fn one_service(service: &Service) -> Vec<(String, String)> {
    let name = service.metadata.name.to_uppercase().replace('-', "_");
    let ip = &service.spec.cluster_ip;
    let mut found = vec![(format!("{name}_SERVICE_HOST"), ip.clone())];
    if let Some(first) = service.spec.ports.first() {
        found.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
        let protocol = protocol(&first.protocol);
        found.push((format!("{name}_PORT"), format!("{}://{ip}:{}", protocol.to_lowercase(), first.port)));
    }
    for port in &service.spec.ports {
        if !port.name.is_empty() {
            let port_name = port.name.to_uppercase().replace('-', "_");
            found.push((format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string()));
        }
        let protocol = protocol(&port.protocol);
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        found.push((prefix.clone(), format!("{}://{ip}:{}", protocol.to_lowercase(), port.port)));
        found.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        found.push((format!("{prefix}_PORT"), port.port.to_string()));
        found.push((format!("{prefix}_ADDR"), ip.clone()));
    }
    found
}

fn protocol(stated: &str) -> &str {
    if stated.is_empty() { "TCP" } else { stated }
}

fn whole_objects(container: &Container, sources: &Sources) -> Result<Vec<(String, String)>, ConfigProblem> {
    let mut found = Vec::new();
    for from in &container.env_from {
        let prefixed = |(key, value): (String, String)| (format!("{}{key}", from.prefix), value);
        if let Some(reference) = &from.config_map_ref {
            let object = config_map(sources, &reference.name, reference.optional)?;
            found.extend(object.into_iter().flat_map(|map| map.data.clone()).map(prefixed));
        }
        if let Some(reference) = &from.secret_ref {
            let object = secret(sources, &reference.name, reference.optional)?;
            let entries = object.into_iter().flat_map(|secret| secret.data.clone());
            found.extend(entries.map(|(key, value)| (key, decode_text(&value))).map(prefixed));
        }
    }
    Ok(found)
}

fn decode_text(base64: &str) -> String {
    String::from_utf8_lossy(&decode_base64(base64).unwrap_or_default()).into_owned()
}

/// A ConfigMap, or nothing when it is optional and absent.
pub(crate) fn config_map<'a>(
    sources: &'a Sources,
    name: &str,
    optional: bool,
) -> Result<Option<&'a ConfigMap>, ConfigProblem> {
    match sources.config_maps.get(name).and_then(Option::as_ref) {
        None if !optional => Err(ConfigProblem(format!("configmap {name:?} not found"))),
        found => Ok(found),
    }
}

/// A Secret, or nothing when it is optional and absent.
pub(crate) fn secret<'a>(
    sources: &'a Sources,
    name: &str,
    optional: bool,
) -> Result<Option<&'a Secret>, ConfigProblem> {
    match sources.secrets.get(name).and_then(Option::as_ref) {
        None if !optional => Err(ConfigProblem(format!("secret {name:?} not found"))),
        found => Ok(found),
    }
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources,
    place: &Place,
) -> Result<Option<String>, ConfigProblem> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, place).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, Some(container), resource, place).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let value = config_map(sources, &key.name, key.optional)?.and_then(|map| map.data.get(&key.key)).cloned();
        return found_or_optional(value, key.optional, &key.key, "ConfigMap", pod, &key.name);
    }
    if let Some(key) = &source.secret_key_ref {
        let value = secret(sources, &key.name, key.optional)?.and_then(|secret| secret.data.get(&key.key));
        return found_or_optional(value.map(|v| decode_text(v)), key.optional, &key.key, "Secret", pod, &key.name);
    }
    Err(ConfigProblem("a variable's valueFrom names no source that this version knows".into()))
}

fn found_or_optional(
    value: Option<String>,
    optional: bool,
    key: &str,
    kind: &str,
    pod: &Pod,
    name: &str,
) -> Result<Option<String>, ConfigProblem> {
    if value.is_none() && !optional {
        let namespace = &pod.metadata.namespace;
        return Err(ConfigProblem(format!("couldn't find key {key} in {kind} {namespace}/{name}")));
    }
    Ok(value)
}

/// The key in `metadata.labels['key']`.
fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

fn lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The text of a field of the pod.
pub fn field_value(pod: &Pod, field: &FieldRef, place: &Place) -> Result<String, ConfigProblem> {
    let meta = &pod.metadata;
    let path = field.field_path.as_str();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(meta.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(meta.annotations.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.podIP" | "status.podIPs" => place.pod_ip.clone(),
        "status.hostIP" | "status.hostIPs" => place.host_ip.clone(),
        other => return Err(ConfigProblem(format!("field path {other:?} is not supported"))),
    })
}

/// The number of a resource of a container, in its divisor's unit, rounded up.
pub fn resource_value(
    pod: &Pod,
    own: Option<&Container>,
    field: &ResourceFieldRef,
    place: &Place,
) -> Result<String, ConfigProblem> {
    let named = pod.spec.all_containers().find(|container| container.name == field.container_name);
    let container = named.or(own).ok_or_else(|| ConfigProblem(format!("no container {:?}", field.container_name)))?;
    let (kind, resource) = field.resource.split_once('.').unwrap_or(("", &field.resource));
    let amount = match kind {
        "limits" => container.resources.limits.get(resource).or(place.allocatable.get(resource)).copied(),
        "requests" => Some(container.resources.request(resource)),
        _ => return Err(ConfigProblem(format!("resource {:?} is not limits.* or requests.*", field.resource))),
    };
    let divisor = field.divisor.filter(|d| d.milli() > 0).unwrap_or(Quantity::from_units(1));
    let (amount, divisor) = (amount.unwrap_or_default().milli(), divisor.milli());
    Ok((amount.div_euclid(divisor) + i128::from(amount.rem_euclid(divisor) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(container: Value) -> Pod {
        let metadata = json!({"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "a"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"nodeName": "n", "containers": [container]}}))
            .unwrap()
    }

    fn sources() -> Sources {
        let map = json!({"metadata": {"name": "m"}, "data": {"K": "v", "L": "w"}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"P": "c2VjcmV0"}});
        let service = json!({"metadata": {"name": "my-db", "namespace": "default"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 5432, "name": "sql"}]}});
        Sources {
            config_maps: [("m".to_owned(), Some(serde_json::from_value(map).unwrap()))].into(),
            secrets: [("s".to_owned(), Some(serde_json::from_value(secret).unwrap()))].into(),
            services: vec![serde_json::from_value(service).unwrap()],
            ..Sources::default()
        }
    }

    fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["PATH=/bin".into(), "MODE=image".into()],
            working_dir: "/srv".into(),
            user: "nobody".into(),
        }
    }

    fn resolve(container: Value) -> Result<Process, String> {
        let pod = pod(container);
        let place = Place {
            pod_ip: "10.1.1.1".into(),
            allocatable: [("cpu".to_owned(), Quantity::from_milli(250))].into(),
            ..Place::default()
        };
        process(&pod, &pod.spec.containers[0], &image(), &sources(), &place).map_err(|e| e.0)
    }

    #[test]
    fn commands_and_arguments_combine_with_the_image() {
        for (container, expected) in [
            (json!({}), vec!["/entry", "default"]),
            (json!({"args": ["a"]}), vec!["/entry", "a"]),
            (json!({"command": ["c"]}), vec!["c"]),
            (
                json!({"command": ["c"], "args": ["a", "$(MODE)", "$$(MODE)", "$(NONE)", "$"]}),
                vec!["c", "a", "image", "$(MODE)", "$(NONE)", "$"],
            ),
        ] {
            assert_eq!(resolve(container).unwrap().argv, expected);
        }
    }

    fn check_env(env: Value, name: &str, expected: &str) {
        let process = resolve(json!({"env": env, "envFrom": [{"prefix": "M_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}]})).unwrap();
        let found = process.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(found, Some(expected), "{:?}", process.env);
    }

    #[test]
    fn variables_come_from_everywhere_and_later_ones_win() {
        check_env(json!([]), "PATH", "/bin");
        check_env(json!([{"name": "MODE", "value": "own"}]), "MODE", "own");
        check_env(json!([]), "M_K", "v");
        check_env(json!([]), "P", "secret");
        check_env(json!([]), "MY_DB_SERVICE_HOST", "10.0.0.1");
        check_env(json!([]), "MY_DB_PORT_5432_TCP", "tcp://10.0.0.1:5432");
        check_env(json!([{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(M_K)"}]), "B", "1v");
        let field = |path: &str| json!([{"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
        for (path, expected) in [
            ("metadata.name", "p"),
            ("spec.nodeName", "n"),
            ("status.podIP", "10.1.1.1"),
            ("metadata.labels['app']", "a"),
            ("metadata.labels['no']", ""),
        ] {
            check_env(field(path), "F", expected);
        }
        check_env(
            json!([{"name": "R", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}]),
            "R",
            "250",
        );
        check_env(json!([{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "P"}}}]), "S", "secret");
    }

    #[test]
    fn sub_paths_stay_in_their_volume() {
        let env = BTreeMap::from([("A", "a"), ("ROOT", "/tmp"), ("UP", ".."), ("NONE", "")]);
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for (field, path, expected) in [
            ("subPath", "", Ok("")),
            ("subPath", "$(A)/..b", Ok("$(A)/..b")),
            ("subPathExpr", "x/$(A)", Ok("x/a")),
            ("subPathExpr", "$$(A)", Ok("$(A)")),
            ("subPathExpr", "$(ROOT)", Err("error SubPath `/tmp` must not be an absolute path")),
            ("subPathExpr", "$(NONE)/x", Err("error SubPath `/x` must not be an absolute path")),
            ("subPathExpr", "a/$(UP)", Err("unable to provision SubPath `a/..`: must not contain '..'")),
            ("subPathExpr", "$(B)", Err("missing value for \"B\"")),
        ] {
            let mount: VolumeMount = serde_json::from_value(json!({"name": "v", field: path})).unwrap();
            let found = sub_path(&mount, &env).map_err(|problem| problem.to_string());
            assert_eq!(found.as_deref().map_err(|text| &text[..]), expected);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let from = |source: Value| json!({"env": [{"name": "X", "valueFrom": source}]});
        for (container, text) in [
            (from(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})), "configmap \"gone\" not found"),
            (
                from(json!({"configMapKeyRef": {"name": "m", "key": "no"}})),
                "couldn't find key no in ConfigMap default/m",
            ),
            (from(json!({"fieldRef": {"fieldPath": "spec.x"}})), "field path \"spec.x\" is not supported"),
            (json!({"envFrom": [{"secretRef": {"name": "gone"}}]}), "secret \"gone\" not found"),
            (json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}), "runAsNonRoot"),
        ] {
            let error = resolve(container).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        assert!(resolve(from(json!({"configMapKeyRef": {"name": "gone", "key": "k", "optional": true}}))).is_ok());
    }

    #[test]
    fn limits_and_users_are_taken_over() {
        let process = resolve(
            json!({"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}, "securityContext": {"runAsUser": 7}}),
        )
        .unwrap();
        assert_eq!(
            (process.limits.cpu_limit_millis, process.limits.memory_limit_bytes, process.run_as_user),
            (500, 64 << 20, Some(7))
        );
        assert_eq!((process.cwd.as_str(), process.user.as_str()), ("/srv", "nobody"));
    }
}
