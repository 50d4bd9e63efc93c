//! A client that opens a watch over the network and never reads: what it costs the server, and whom it holds up.

use std::time::Duration;

use isopod_store::Limits;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::site::Site;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

/// A watch whose answer nobody reads.
async fn unread_watch(site: &Site, token: &str) -> TlsStream<TcpStream> {
    let mut stream = site.connect().await;
    let head = format!("GET {MAPS}?watch=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1_024
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_is_let_go_and_holds_up_nobody() {
    // History is kept for everyone alike; here little of it, so that what is left is what the watchers hold.
    let limits = Limits { watch_queue: 16, events_per_topic: 16, history_bytes: 1 << 20, ..Limits::default() };
    let site = Site::with_limits(limits).await;
    site.post(MAPS, json!({"metadata": {"name": "x"}})).await;
    let token = site.token("view").await;
    let before = site.server.store_stats().watchers;
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(unread_watch(&site, &token).await);
    }
    while site.server.store_stats().watchers < before + unread.len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let resident = resident_mib();
    // Far more than sockets and buffers take: 64 KiB each time, 256 MiB for all of them together.
    for round in 0..512 {
        let data = json!({"data": {"round": round.to_string(), "file": "x".repeat(64 << 10)}});
        let changed = site.request("PATCH", &format!("{MAPS}/x"), MERGE, data).await;
        assert_eq!(changed["data"]["round"], round.to_string());
    }
    assert_eq!(site.server.store_stats().watchers, before, "nobody keeps what nobody reads");
    let grown = resident_mib().saturating_sub(resident);
    assert!(grown < 128, "{grown} MiB more");
    // Their sockets are still open, and others are served.
    site.request("GET", &format!("{MAPS}/x"), "", json!(null)).await;
    drop(unread);
}

/// Connections that never get as far as a request.
async fn half_open(site: &Site) -> (Vec<TcpStream>, Vec<TlsStream<TcpStream>>) {
    let mut silent = Vec::new();
    for number in 0..800 {
        let mut socket = TcpStream::connect(site.address.trim_start_matches("https://")).await.unwrap();
        // A third has begun to shake hands, and stopped.
        if number % 3 == 0 {
            socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]).await.unwrap();
        }
        silent.push(socket);
    }
    let mut begun = Vec::new();
    for number in 0..200 {
        let mut stream = site.connect().await;
        let part = if number % 2 == 0 { "POST /api/v1/namespaces HTTP/1.1\r\nHost: local" } else { "" };
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        begun.push(stream);
    }
    (silent, begun)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_half_open_connections_hold_up_nobody() {
    let site = Site::open().await;
    let token = site.token("view").await;
    let resident = resident_mib();
    let (silent, begun) = half_open(&site).await;
    let mut stream = site.connect().await;
    let head = format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let grown = resident_mib().saturating_sub(resident);
    assert!(grown < 128, "{grown} MiB more, both ends of the connections");
    // They hold their places for as long as a handshake or a request's head may take, and then none.
    for mut socket in silent {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), socket.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the server hangs up");
    }
    drop(begun);
}
