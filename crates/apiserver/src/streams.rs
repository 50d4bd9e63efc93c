//! Logs, exec, attach and port-forward (facts, sections 1.14 and 1.15): the client's protocol ends here, the node agent
//! is reached through [`crate::Kubelets`].

mod channels;
mod exec;
#[cfg(fuzzing)]
pub mod fuzzing;
mod logs;
pub(crate) mod messages;
mod port_forward;
mod spdy;
mod spdy_exec;
mod upgrade;

use http::Request;
use isopod_planner::admission::Operation;
use isopod_schema::Status;
use serde_json::{Value, json};

use crate::admission::Asked;
use crate::body::RequestBody;
use crate::codec;
use crate::context::Context;
use crate::kubelets::Target;
use crate::respond::Response;
use crate::strategy::{meta, text};

const STREAMS: [&str; 4] = ["attach", "exec", "log", "portforward"];

pub(crate) fn is_stream(subresource: &str) -> bool {
    STREAMS.contains(&subresource)
}

pub(crate) async fn answer(context: &Context<'_>, request: Request<RequestBody>) -> Result<Response, Status> {
    if context.kind.subresource(&context.info.subresource).is_none() {
        return Ok(crate::respond::no_such_path());
    }
    match context.info.subresource.as_str() {
        "log" => messages::log(request, logs::answer(context).await?),
        "portforward" => port_forward::answer(context, request, &admitted(context, ports(context)?).await?).await,
        _ => exec::answer(context, request, &admitted(context, exec_options(context)).await?).await,
    }
}

/// The options with which a stream may be opened or something be proxied, as the query said them and admission left them.
///
/// # Errors
/// What admission refuses with.
pub(crate) async fn admitted(context: &Context<'_>, mut options: Value) -> Result<Value, Status> {
    options["apiVersion"] = "v1".into();
    options["kind"] = connect_kind(&context.kind.plural, &context.info.subresource).into();
    let asked = Asked::new(context, Operation::Connect, &options, None, false);
    asked.mutate(&mut options).await?;
    asked.validate(&options).await.map(|_| options)
}

fn exec_options(context: &Context<'_>) -> Value {
    let query = &context.query;
    let mut options = json!({});
    for name in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|name| query.flag(name)) {
        options[name] = true.into();
    }
    if let Some(container) = query.get("container") {
        options["container"] = container.into();
    }
    let command: Vec<&str> = query.all("command").collect();
    if !command.is_empty() {
        options["command"] = json!(command);
    }
    options
}

/// Ports that are forwarded in the older form; the newer one names each as it is connected to.
fn ports(context: &Context<'_>) -> Result<Value, Status> {
    let texts = context.query.all("ports").flat_map(|list| list.split(','));
    let ports: Option<Vec<u16>> = texts.map(|text| text.parse().ok().filter(|port| *port > 0)).collect();
    let ports = ports.ok_or_else(|| Status::bad_request("query parameter \"ports\" must be port numbers"))?;
    Ok(if ports.is_empty() { json!({}) } else { json!({"ports": ports}) })
}

/// Kind of the options of a stream, or of what is proxied.
pub(crate) fn connect_kind(plural: &str, subresource: &str) -> &'static str {
    match (plural, subresource) {
        (_, "exec") => "PodExecOptions",
        (_, "attach") => "PodAttachOptions",
        ("services", "proxy") => "ServiceProxyOptions",
        ("nodes", "proxy") => "NodeProxyOptions",
        (_, "proxy") => "PodProxyOptions",
        _ => "PodPortForwardOptions",
    }
}

fn pod(context: &Context<'_>) -> Result<Value, Status> {
    codec::decode(&context.entry(&context.info.name)?.value)
}

/// A pod that has been given a node.
struct Placed {
    pod: Value,
    node: String,
}

impl Placed {
    fn find(context: &Context<'_>) -> Result<Self, Status> {
        let name = &context.info.name;
        let pod = pod(context)?;
        let node = text(&pod, &["spec", "nodeName"]).to_owned();
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        Ok(Self { pod, node })
    }

    fn target(&self, container: &str) -> Target {
        Target {
            namespace: meta(&self.pod, "namespace").into(),
            pod: meta(&self.pod, "name").into(),
            uid: meta(&self.pod, "uid").into(),
            container: container.into(),
        }
    }

    /// The container that is meant: the one named, or the only one.
    fn container(&self, asked: Option<&str>) -> Result<String, Status> {
        let names = |list: &str| -> Vec<&str> {
            self.pod["spec"][list]
                .as_array()
                .into_iter()
                .flatten()
                .map(|container| text(container, &["name"]))
                .collect()
        };
        let (main, init, debug) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
        let pod = meta(&self.pod, "name");
        match (asked, main.as_slice()) {
            (Some(asked), _) if [&main, &init, &debug].iter().any(|list| list.contains(&asked)) => Ok(asked.to_owned()),
            (Some(asked), _) => Err(Status::bad_request(format!("container {asked} is not valid for pod {pod}"))),
            (None, [only]) if init.is_empty() || debug.is_empty() => Ok((*only).to_owned()),
            (None, _) => {
                let choices = format!("choose one of: [{}]", main.join(" "));
                let or = if init.is_empty() {
                    String::new()
                } else {
                    format!(" or one of the init containers: [{}]", init.join(" "))
                };
                Err(Status::bad_request(format!("a container name must be specified for pod {pod}, {choices}{or}")))
            }
        }
    }
}
