//! logs, exec, attach and port-forward with the real kubectl, over WebSocket and over SPDY.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::ChildStdout;

use crate::site::{Said, Site};

#[tokio::test(flavor = "multi_thread")]
async fn logs() {
    let table = [
        ("logs p", 0, "node-1 p/main\nline 1\nline 2\nline 3\n", ""),
        ("logs p --tail=1", 0, "line 3\n", ""),
        ("logs two -c b --tail=4", 0, "node-1 two/b\nline 1\nline 2\nline 3\n", ""),
        ("logs -f p --tail=2", 0, "line 2\nline 3\n", ""),
        ("logs p --previous", 0, "the run before\n", ""),
        ("logs two -c c", 1, "", "container c is not valid for pod two"),
        ("logs none", 1, "", "pods \"none\" not found"),
    ];
    for site in Site::for_each_kubectl().await {
        site.running_pod("p", &["main"]).await;
        site.running_pod("two", &["a", "b"]).await;
        for (line, code, out, err) in table {
            let said = site.kubectl(line).await;
            assert_eq!((said.code, said.out.as_str()), (code, out), "{line}: {said:?}");
            assert!(said.err.contains(err), "{line}: {said:?}");
        }
    }
}

/// One command in one of the protocols.
async fn exec(site: &Site, websocket: bool, arguments: &str, input: &str) -> Said {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut child = site.command(&arguments);
    Site::run(child.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket.to_string()), input).await
}

/// Every one with every other.
fn pairs<'a, A, B>(left: &'a [A], right: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    left.iter().flat_map(move |a| right.iter().map(move |b| (a, b)))
}

/// 1.20 speaks SPDY only.
fn protocols(site: &Site) -> &'static [bool] {
    if site.client.is_old { &[false] } else { &[true, false] }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_and_attach() {
    let long = "0123456789abcdef\n".repeat(20_000);
    let table = [
        ("exec p -- echo hello world", "", 0, "hello world\n", ""),
        ("exec p -- fail 7", "", 7, "", "command terminated with exit code 7"),
        ("exec p -- both", "", 0, "to stdout\n", "to stderr"),
        ("exec -i p -- cat", "from stdin", 0, "from stdin", ""),
        ("exec -i p -- cat", &long, 0, &long, ""),
        ("exec p -- none", "", 1, "", "there is no command"),
        ("exec p -- refused", "", 1, "", "the container does not run"),
        ("exec p -c other -- echo x", "", 1, "", "container other is not valid for pod p"),
        ("attach p", "", 0, "attached to main\n", ""),
    ];
    for site in Site::for_each_kubectl().await {
        site.running_pod("p", &["main"]).await;
        for (websocket, (line, input, code, out, err)) in pairs(protocols(&site), &table) {
            let said = exec(&site, *websocket, line, input).await;
            let what = format!("{}, websocket {websocket}: {line}", site.client.name);
            let begin = said.out.get(..100.min(said.out.len()));
            assert!(said.code == *code && said.out == *out, "{what}: {} {begin:?} {}", said.code, said.err);
            assert!(said.err.contains(err), "{what}: {said:?}");
        }
    }
}

/// A terminal of a known size around kubectl: `script` makes one.
#[tokio::test(flavor = "multi_thread")]
async fn terminals_have_the_size_of_the_users() {
    for site in Site::for_each_kubectl().await {
        site.running_pod("p", &["main"]).await;
        for websocket in protocols(&site) {
            let line = format!("stty rows 30 cols 100; {} exec -it p -- size", site.client.program.display());
            let mut command = site.script(&line);
            let mut child = command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket.to_string()).spawn().unwrap();
            // The terminal ends when nobody is at it any more.
            let _user = child.stdin.take();
            let said = child.wait_with_output().await.unwrap();
            let out = String::from_utf8_lossy(&said.stdout);
            assert!(out.contains("100x30"), "{}, websocket {websocket}: {said:?}", site.client.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward() {
    for site in Site::for_each_kubectl().await {
        site.running_pod("p", &["main"]).await;
        for websocket in protocols(&site) {
            let mut command = site.command(&["port-forward", "p", ":80", ":81"]);
            let mut child = command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket.to_string()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let ports = ports(&mut lines).await;
            for text in ["hello", "again"] {
                assert_eq!(ask(ports[0], text).await, text.to_uppercase());
            }
            let large = "x".repeat(300_000);
            assert_eq!(ask(ports[0], &large).await, large.to_uppercase());
            // Nothing listens there; kubectl reports it and closes the connection.
            assert_eq!(ask(ports[1], "hello").await, "");
            child.kill().await.unwrap();
        }
    }
}

/// The two local ports that kubectl says it forwards from.
async fn ports(lines: &mut Lines<BufReader<ChildStdout>>) -> Vec<u16> {
    let mut ports = Vec::new();
    while ports.len() < 2 {
        let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
        let rest = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split_once(' '));
        ports.extend(rest.map(|(port, _)| port.parse::<u16>().unwrap()));
    }
    ports
}

/// Sends a text to a local port and reads as much back.
async fn ask(port: u16, text: &str) -> String {
    let (mut read, mut write) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let owned = text.to_owned();
    let sending = tokio::spawn(async move {
        let _ = write.write_all(owned.as_bytes()).await;
        write
    });
    let mut answer = vec![0; text.len()];
    let read = tokio::time::timeout(Duration::from_secs(20), read.read_exact(&mut answer)).await.unwrap();
    drop(sending.await.unwrap());
    if read.is_err() { String::new() } else { String::from_utf8(answer).unwrap() }
}
