//! A node agent that runs nothing: its commands are these few words, its ports answer in upper case.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use bytes::Bytes;
use isopod_apiserver::{
    Duplex, ExecInput, ExecOutput, ExecRequest, ExecSession, Kubelets, LogRequest, NodeUsage, PodUsage,
    PortForwardRequest, Status, Usage,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub struct FakeNode;

#[async_trait]
impl Kubelets for FakeNode {
    async fn logs(&self, node: &str, request: LogRequest) -> Result<mpsc::Receiver<Result<Bytes, String>>, Status> {
        let (chunks, receiver) = mpsc::channel(4);
        let first = format!("{node} {}/{}\n", request.target.pod, request.target.container);
        let lines: Vec<String> = std::iter::once(first).chain((1..=3).map(|line| format!("line {line}\n"))).collect();
        let lines = if request.previous { vec!["the run before\n".into()] } else { lines };
        let skip = request.tail_lines.map_or(0, |tail| lines.len().saturating_sub(tail as usize));
        tokio::spawn(async move {
            for line in lines.into_iter().skip(skip) {
                let _ = chunks.send(Ok(line.into())).await;
            }
        });
        Ok(receiver)
    }

    async fn exec(&self, _node: &str, request: ExecRequest) -> Result<ExecSession, Status> {
        if request.command.first().is_some_and(|command| command == "refused") {
            return Err(Status::bad_request("the container does not run"));
        }
        let (input, mut inputs) = mpsc::channel(4);
        let (output, outputs) = mpsc::channel(4);
        tokio::spawn(async move {
            let end = run(request, &mut inputs, &output).await;
            let _ = output.send(end).await;
        });
        Ok(ExecSession { input, output: outputs })
    }

    async fn port_forward(&self, _node: &str, request: PortForwardRequest) -> Result<Box<dyn Duplex>, Status> {
        if request.port != 80 {
            return Err(Status::bad_request(format!("nothing listens on port {}", request.port)));
        }
        let (near, mut far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok(read) = far.read(&mut buffer).await
                && read > 0
                && far.write_all(&buffer[..read].to_ascii_uppercase()).await.is_ok()
            {}
        });
        Ok(Box::new(near))
    }

    /// Half a processor and 64 MiB for each container, twice that for the machine.
    async fn usage(&self, node: &str) -> Result<NodeUsage, Status> {
        if node != "node-1" {
            return Err(Status::unavailable("no such node"));
        }
        let millis = jiff::Timestamp::now().as_millisecond();
        let at_unix_nanos = millis * 1_000_000;
        let used = |share: u64| Usage {
            at_unix_nanos,
            cpu_nanos: u64::try_from(millis).unwrap() * 1000 * share,
            memory_bytes: (64 << 20) * share / 500,
        };
        let pod = |name: &str, containers: &[&str]| PodUsage {
            namespace: "default".into(),
            pod: name.into(),
            containers: containers.iter().map(|name| ((*name).to_owned(), used(500))).collect(),
        };
        Ok(NodeUsage { whole: used(1000), pods: vec![pod("p", &["main"]), pod("two", &["a", "b"])] })
    }

    /// The pods of this node are servers of the test: their ports are ports of this machine.
    async fn dial(&self, address: SocketAddr) -> std::io::Result<Box<dyn Duplex>> {
        if address.ip() != IpAddr::from([10, 0, 0, 1]) {
            return Err(std::io::Error::other("no route to host"));
        }
        Ok(Box::new(TcpStream::connect(("127.0.0.1", address.port())).await?))
    }
}

/// `echo WORDS`, `fail CODE`, `cat`, `size`, `both`; attach says hello.
async fn run(
    request: ExecRequest,
    inputs: &mut mpsc::Receiver<ExecInput>,
    output: &mpsc::Sender<ExecOutput>,
) -> ExecOutput {
    let out = async |text: String| {
        let _ = output.send(ExecOutput::Stdout(text.into())).await;
    };
    let words: Vec<&str> = request.command.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => out(format!("attached to {}\n", request.target.container)).await,
        ["echo", rest @ ..] => out(format!("{}\n", rest.join(" "))).await,
        ["fail", code] => return ExecOutput::Exited { code: code.parse().unwrap() },
        ["both"] => {
            out("to stdout\n".into()).await;
            let _ = output.send(ExecOutput::Stderr("to stderr\n".into())).await;
        }
        ["cat"] => {
            while let Some(ExecInput::Stdin(bytes)) = inputs.recv().await {
                let _ = output.send(ExecOutput::Stdout(bytes)).await;
            }
        }
        ["size"] => {
            if let Some(ExecInput::Resize { columns, rows }) = inputs.recv().await {
                out(format!("{columns}x{rows}\n")).await;
            }
        }
        other => return ExecOutput::Failed(format!("there is no command {other:?}")),
    }
    ExecOutput::Exited { code: 0 }
}
