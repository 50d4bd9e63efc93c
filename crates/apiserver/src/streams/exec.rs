//! pods/exec and pods/attach: which container, which streams, which protocol; then the protocol's own code.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use isopod_schema::Status;
use serde_json::{Value, json};

use super::upgrade::{self, Kind};
use super::{Placed, channels, spdy_exec};
use crate::body::RequestBody;
use crate::context::Context;
use crate::kubelets::{ExecInput, ExecOutput, ExecRequest, ExecSession};
use crate::respond::{self, Response};

/// How long a client may take to open all of its streams.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Versions of the SPDY form, newest first.
const SPDY_VERSIONS: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Opens the stream that the admitted options describe.
///
/// # Errors
/// 400, 403, 404, and what the node agent refuses with.
pub(super) async fn answer(
    context: &Context<'_>,
    request: Request<RequestBody>,
    options: &Value,
) -> Result<Response, Status> {
    let kind = upgrade::asked(&request)?;
    // Both forms need the same right, although one of them is a GET.
    context.demand_verb("create")?;
    let placed = Placed::find(context)?;
    let exec = exec_request(context, &placed, options)?;
    match kind {
        Kind::WebSocket => {
            let offered = upgrade::offered(request.headers(), "sec-websocket-protocol");
            let protocol = channels::Protocol::choose(&offered)?;
            let session = context.server.kubelets()?.exec(&placed.node, exec.clone()).await?;
            upgrade::websocket(request, protocol.name, move |socket| channels::run(socket, session, protocol, exec))
        }
        Kind::Spdy => {
            let offered = upgrade::offered(request.headers(), "x-stream-protocol-version");
            let Some(version) = choose_spdy(&offered) else { return Ok(no_spdy_version()) };
            let session = context.server.kubelets()?.exec(&placed.node, exec.clone()).await?;
            upgrade::spdy(request, version, move |connection| spdy_exec::run(connection, session, version, exec))
        }
    }
}

fn exec_request(context: &Context<'_>, placed: &Placed, options: &Value) -> Result<ExecRequest, Status> {
    let is_set = |name: &str| options[name] == true;
    let container = placed.container(options["container"].as_str())?;
    let attach = context.info.subresource == "attach";
    let command = options["command"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let request = ExecRequest {
        target: placed.target(&container),
        command: if attach { Vec::new() } else { command.collect() },
        attach,
        stdin: is_set("stdin"),
        stdout: is_set("stdout"),
        // A terminal has one output.
        stderr: is_set("stderr") && !is_set("tty"),
        tty: is_set("tty"),
    };
    if !request.stdin && !request.stdout && !request.stderr {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    if !attach && request.command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    Ok(request)
}

fn choose_spdy(offered: &[&str]) -> Option<&'static str> {
    if offered.is_empty() {
        return Some("");
    }
    let known = |version: &&str| SPDY_VERSIONS.iter().find(|known| *known == version).copied();
    offered.iter().find_map(known)
}

fn no_spdy_version() -> Response {
    let mut response = respond::text(403, "unable to upgrade: none of the stream protocol versions is supported\n");
    for version in SPDY_VERSIONS {
        response.headers_mut().append("x-accepted-stream-protocol-versions", HeaderValue::from_static(version));
    }
    response
}

/// How a command ended, for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Failed(String),
}

impl End {
    /// The document that newer protocols send.
    pub(super) fn document(&self) -> Value {
        let text = self.text();
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "message": text, "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(_) => {
                json!({"metadata": {}, "status": "Failure", "message": text, "reason": "InternalError", "code": 500})
            }
        }
    }

    /// The text that older protocols send; empty for success.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Exited(0) => String::new(),
            Self::Exited(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failed(why) => why.clone(),
        }
    }
}

/// What comes from the command next.
pub(super) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    End(End),
}

pub(super) async fn next_output(session: &mut ExecSession) -> Output {
    match session.output.recv().await {
        Some(ExecOutput::Stdout(bytes)) => Output::Stdout(bytes),
        Some(ExecOutput::Stderr(bytes)) => Output::Stderr(bytes),
        Some(ExecOutput::Exited { code }) => Output::End(End::Exited(code)),
        Some(ExecOutput::Failed(why)) => Output::End(End::Failed(why)),
        None => Output::End(End::Failed("the connection to the container was lost".into())),
    }
}

/// A terminal's new size as clients send it.
pub(super) fn resize(document: &Value) -> Option<ExecInput> {
    let side = |name: &str| document[name].as_u64().and_then(|value| u16::try_from(value).ok());
    Some(ExecInput::Resize { columns: side("Width")?, rows: side("Height")? })
}
