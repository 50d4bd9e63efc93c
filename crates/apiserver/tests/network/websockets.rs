//! Logs and watches as messages of a WebSocket, as browsers read them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::site::Site;

const LOG: &str = "/api/v1/namespaces/default/pods/p/log";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// The head of the answer to a handshake with these headers, and the connection.
async fn shake(site: &Site, path: &str, headers: &[(&str, &str)]) -> (String, TlsStream<TcpStream>) {
    let mut stream = site.connect().await;
    let fixed = [
        ("Host", "api"),
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let lines: String = fixed.iter().chain(headers).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{lines}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(answer).unwrap().to_ascii_lowercase(), stream)
}

async fn open(site: &Site, path: &str, headers: &[(&str, &str)]) -> Socket {
    let (answer, stream) = shake(site, path, headers).await;
    assert!(answer.starts_with("http/1.1 101 "), "{path} {headers:?}: {answer}");
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_as_messages() {
    let site = Site::open().await;
    site.running_pod("p", &["main"]).await;
    let bearer = format!("Bearer {}", site.token("admin").await);
    // The protocol asked for, the one taken, whether messages are text.
    let table = [
        (None, None, false),
        (Some("binary.k8s.io"), Some("binary.k8s.io"), false),
        (Some("other, base64.binary.k8s.io"), Some("base64.binary.k8s.io"), true),
    ];
    for (asked, taken, is_text) in table {
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(asked.map(|asked| ("Sec-WebSocket-Protocol", asked)));
        let (answer, stream) = shake(&site, LOG, &headers).await;
        let line = taken.map(|taken| format!("sec-websocket-protocol: {taken}\r\n"));
        assert_eq!(answer.contains("sec-websocket-protocol"), line.is_some(), "{asked:?}: {answer}");
        assert!(answer.contains(&line.unwrap_or_default()), "{asked:?}: {answer}");
        let mut socket: Socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        assert!(next(&mut socket).await.is_empty(), "the first says only that there is somebody");
        let mut log = Vec::new();
        loop {
            let message = next(&mut socket).await;
            if message.is_close() {
                break;
            }
            assert_eq!(message.is_text(), is_text, "{asked:?}");
            let data = message.into_data();
            log.extend(if is_text { STANDARD.decode(data).unwrap() } else { data.to_vec() });
        }
        assert_eq!(String::from_utf8(log).unwrap(), "node-1 p/main\nline 1\nline 2\nline 3\n", "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_come_as_an_event_a_message() {
    let site = Site::open().await;
    for name in ["a", "b"] {
        site.post(MAPS, json!({"metadata": {"name": name}})).await;
    }
    let bearer = format!("Bearer {}", site.token("view").await);
    for (accept, is_text) in [("application/json", true), ("application/vnd.kubernetes.protobuf", false)] {
        let headers = [("Authorization", bearer.as_str()), ("Accept", accept)];
        let mut socket = open(&site, &format!("{MAPS}?watch=true"), &headers).await;
        site.request("PATCH", &format!("{MAPS}/b"), "application/merge-patch+json", json!({"data": {"from": accept}}))
            .await;
        for (event, name) in [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "b")] {
            let message = next(&mut socket).await;
            assert_eq!(message.is_text(), is_text, "{accept}");
            let data = message.into_data();
            if is_text {
                let found: Value = serde_json::from_slice(&data).unwrap();
                assert_eq!((&found["type"], &found["object"]["metadata"]["name"]), (&json!(event), &json!(name)));
            } else {
                // Field 1 is the kind of event, and comes first: no length is before it.
                assert!(data.starts_with(&[b"\x0a", &[event.len() as u8][..], event.as_bytes()].concat()), "{data:?}");
                assert!(data.windows(4).any(|part| part == b"k8s\0"), "{data:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_client_or_its_time() {
    let site = Site::open().await;
    let bearer = format!("Bearer {}", site.token("view").await);
    let headers = [("Authorization", bearer.as_str())];
    let mut socket = open(&site, &format!("{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=1"), &headers).await;
    while !next(&mut socket).await.is_close() {}
    let before = site.server.store_stats().watchers;
    let socket = open(&site, &format!("{MAPS}?watch=true"), &headers).await;
    assert_eq!(site.server.store_stats().watchers, before + 1);
    drop(socket);
    // Who has gone is noticed when there is something to tell him.
    for number in 0.. {
        site.post(MAPS, json!({"metadata": {"name": format!("m-{number}")}})).await;
        if site.server.store_stats().watchers <= before {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_refused() {
    let site = Site::open().await;
    site.running_pod("p", &["main"]).await;
    let token = site.token("view").await;
    let bearer = format!("Bearer {token}");
    let secret = format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(&token));
    let wrong = format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode("none"));
    let protocols = |names: &[&str]| ("Sec-WebSocket-Protocol", names.join(", "));
    let table = [
        (LOG, ("Authorization", bearer.clone()), 101),
        ("/api/v1/namespaces/default/pods/none/log", ("Authorization", bearer.clone()), 404),
        ("/api/v1/namespaces/default/secrets?watch=1", ("Authorization", bearer), 403),
        // A token among the protocols is one, when there is another protocol, and is not told back.
        (LOG, protocols(&["binary.k8s.io", &secret]), 101),
        (LOG, protocols(&[&secret]), 401),
        (LOG, protocols(&[&secret, &secret, "binary.k8s.io"]), 401),
        (LOG, protocols(&[&wrong, "binary.k8s.io"]), 401),
        (LOG, protocols(&[&secret, "v4.channel.k8s.io"]), 400),
    ];
    for (path, (name, value), code) in table {
        let (answer, _) = shake(&site, path, &[(name, &value)]).await;
        assert!(answer.starts_with(&format!("http/1.1 {code} ")), "{path} {name}: {value}: {answer}");
        assert!(!answer.contains("bearer.authorization"), "{answer}");
    }
}
