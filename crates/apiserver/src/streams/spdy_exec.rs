//! exec and attach over SPDY/3.1: one stream per kind of data, named by its header `streamtype`.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::exec::{End, OPEN_TIMEOUT, Output, next_output, resize};
use super::spdy::{Session, Stream};
use crate::kubelets::{ExecInput, ExecRequest, ExecSession};

/// Longest message about a terminal's size in bytes.
const RESIZE_BYTES_MAX: usize = 4 << 10;

/// Carries a session until the command has ended or the client has gone.
pub(super) async fn run(
    connection: TokioIo<Upgraded>,
    session: ExecSession,
    version: &'static str,
    request: ExecRequest,
) {
    let mut spdy = Session::start(connection);
    let wanted = wanted(version, &request);
    let Ok(Some(streams)) = tokio::time::timeout(OPEN_TIMEOUT, collect(&mut spdy, &wanted)).await else {
        tracing::debug!("a client did not open all of its streams");
        return;
    };
    if carry(&mut spdy, streams, session, version == "v4.channel.k8s.io").await {
        spdy.close().await;
    }
}

fn wanted(version: &str, request: &ExecRequest) -> Vec<&'static str> {
    let sized = request.tty && matches!(version, "v3.channel.k8s.io" | "v4.channel.k8s.io");
    let all = [
        ("error", true),
        ("stdin", request.stdin),
        ("stdout", request.stdout),
        ("stderr", request.stderr),
        ("resize", sized),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
}

async fn collect(spdy: &mut Session, wanted: &[&'static str]) -> Option<BTreeMap<&'static str, Stream>> {
    let mut streams = BTreeMap::new();
    while streams.len() < wanted.len() {
        let stream = spdy.accept().await?;
        let name = stream.headers.get("streamtype").map(String::as_str).unwrap_or_default();
        if let Some(name) = wanted.iter().find(|wanted| **wanted == name) {
            streams.insert(*name, stream);
        }
    }
    Some(streams)
}

/// True when the end of the command was sent.
async fn carry(
    spdy: &mut Session,
    mut streams: BTreeMap<&'static str, Stream>,
    mut session: ExecSession,
    status: bool,
) -> bool {
    // Ends with this function, and with it the readers.
    let mut readers = JoinSet::new();
    if let Some(stdin) = streams.remove("stdin") {
        readers.spawn(forward_stdin(stdin, session.input.clone()));
    }
    if let Some(sizes) = streams.remove("resize") {
        readers.spawn(forward_sizes(sizes, session.input.clone()));
    }
    loop {
        let (name, data) = tokio::select! {
            output = next_output(&mut session) => match output {
                Output::Stdout(data) => ("stdout", data),
                Output::Stderr(data) => ("stderr", data),
                Output::End(end) => {
                    readers.shutdown().await;
                    return finish(streams, &end, status).await;
                }
            },
            more = spdy.accept() => match more {
                Some(_) => continue,
                None => return false,
            },
        };
        if let Some(stream) = streams.get(name)
            && stream.writer.send(data).await.is_err()
        {
            return false;
        }
    }
}

async fn finish(mut streams: BTreeMap<&'static str, Stream>, end: &End, status: bool) -> bool {
    let message = if status { end.document().to_string() } else { end.text() };
    let told = match streams.get("error") {
        Some(error) => error.writer.send(message.into()).await.is_ok(),
        None => false,
    };
    for stream in streams.values_mut() {
        stream.writer.finish().await;
    }
    told
}

async fn forward_stdin(mut stdin: Stream, input: mpsc::Sender<ExecInput>) {
    while let Some(data) = stdin.reader.recv().await {
        if input.send(ExecInput::Stdin(data)).await.is_err() {
            return;
        }
    }
    let _ = input.send(ExecInput::StdinClosed).await;
}

async fn forward_sizes(mut sizes: Stream, input: mpsc::Sender<ExecInput>) {
    let mut buffer = BytesMut::new();
    while let Some(data) = sizes.reader.recv().await {
        for size in parse_sizes(&mut buffer, &data) {
            if input.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// Documents that follow each other, cut anywhere.
fn parse_sizes(buffer: &mut BytesMut, data: &Bytes) -> Vec<ExecInput> {
    buffer.extend_from_slice(data);
    let mut documents = serde_json::Deserializer::from_slice(buffer).into_iter::<serde_json::Value>();
    let found = documents.by_ref().map_while(Result::ok).filter_map(|document| resize(&document)).collect();
    let used = documents.byte_offset();
    buffer.advance(used.min(buffer.len()));
    if buffer.len() > RESIZE_BYTES_MAX {
        buffer.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_come_in_pieces() {
        let mut buffer = BytesMut::new();
        let size = |columns, rows| ExecInput::Resize { columns, rows };
        let mut parse = |data: &'static str| parse_sizes(&mut buffer, &Bytes::from_static(data.as_bytes()));
        assert_eq!(parse("{\"Width\":1,\"Hei"), []);
        assert_eq!(parse("ght\":2}\n{\"Width\":3,\"Height\":4}\n{"), [size(1, 2), size(3, 4)]);
        assert_eq!(parse("\"Width\":5,\"Height\":6}"), [size(5, 6)]);
    }
}
