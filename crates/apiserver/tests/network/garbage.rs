//! Bytes that are no frames, on connections that were upgraded to WebSocket or SPDY.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::site::Site;

const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec?command=cat&stdin=true&stdout=true&container=main";

/// Numbers that look random and are the same each time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_only() {
    let site = Site::open().await;
    site.running_pod("p", &["main"]).await;
    let token = site.token("admin").await;
    let protocols = [
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io",
        "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io",
    ];
    for (number, protocol) in protocols.into_iter().cycle().take(60).enumerate() {
        let mut stream = site.connect().await;
        let head = format!(
            "POST {EXEC} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n{protocol}\r\n\r\n"
        );
        stream
            .write_all(head.replacen("POST", if number % 2 == 0 { "GET" } else { "POST" }, 1).as_bytes())
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        let mut bytes = noise(number as u64, 16 + number * 40);
        // Some begin as what they are not.
        if number % 4 < 2 {
            bytes[..2].copy_from_slice(if number % 2 == 0 { &[0x82, 0xfe] } else { &[0x80, 0x03] });
        }
        // Who is hung up on while he talks sees that here.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
    }
    let found = site.request("GET", "/api/v1/namespaces/default/pods/p", "", serde_json::Value::Null).await;
    assert_eq!(found["metadata"]["name"], "p");
    site.says("exec p -- echo still here", "still here").await;
}
