//! A DNS relay: pods ask it, it asks the host's own servers and hands the answers back.
//!
//! Messages pass unread but for their header: a question that no server answers in time gets `SERVFAIL`. Questions in flight
//! and message sizes are bounded.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::NetError;

/// Time each server has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions in flight at once; more are dropped, and asked again by the pods' resolvers.
const IN_FLIGHT_MAX: usize = 1024;
/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;
/// Response code `SERVFAIL`.
const SERVFAIL: u8 = 2;

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct DnsRelay {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// The name servers in this host's /etc/resolv.conf.
pub fn upstreams_of_this_host() -> Vec<SocketAddr> {
    parse_resolv_conf(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok());
    addresses.map(|address| SocketAddr::new(address, 53)).collect()
}

/// The answer `SERVFAIL` to a question.
fn failure(question: &[u8]) -> Option<Vec<u8>> {
    if question.len() < HEADER_BYTES {
        return None;
    }
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[3] = answer[3] & 0xf0 | SERVFAIL;
    Some(answer)
}

impl DnsRelay {
    /// Listens on an address, UDP and TCP, on a free port.
    ///
    /// # Errors
    /// `Dns` when it cannot.
    pub async fn start(address: Ipv4Addr, upstreams: Vec<SocketAddr>) -> Result<Self, NetError> {
        let wanted = SocketAddr::new(address.into(), 0);
        let failed = |source| NetError::Dns { address: wanted, source };
        let tcp = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let shared = Arc::new((upstreams, Semaphore::new(IN_FLIGHT_MAX)));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(Arc::new(udp), shared.clone()));
        tasks.spawn(serve_tcp(tcp, shared));
        Ok(Self { address, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

type Shared = Arc<(Vec<SocketAddr>, Semaphore)>;

async fn serve_udp(socket: Arc<UdpSocket>, shared: Shared) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let question = buffer[..length].to_vec();
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(_permit) = shared.1.try_acquire() else { return };
            if let Some(answer) = ask_all(&question, &shared.0).await.or_else(|| failure(&question))
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%error, %client, "a DNS answer could not be sent");
            }
        });
    }
}

/// The first answer of the servers, asked one after the other.
async fn ask_all(question: &[u8], upstreams: &[SocketAddr]) -> Option<Vec<u8>> {
    for upstream in upstreams {
        if let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_TIMEOUT, ask(question, *upstream)).await {
            return Some(answer);
        }
    }
    None
}

async fn ask(question: &[u8], upstream: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= HEADER_BYTES && buffer[..2] == question[..2.min(question.len())] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Shared) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(_permit) = shared.1.try_acquire() else { return };
            let served = tokio::time::timeout(ANSWER_TIMEOUT * 4, relay_tcp(stream, &shared.0)).await;
            tracing::trace!(?served, "DNS over TCP");
        });
    }
}

/// Relays one connection to the first server that takes it.
async fn relay_tcp(mut client: TcpStream, upstreams: &[SocketAddr]) -> std::io::Result<()> {
    let length = client.read_u16().await?;
    let mut question = vec![0; usize::from(length)];
    client.read_exact(&mut question).await?;
    for upstream in upstreams {
        let Ok(Ok(mut server)) = tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(upstream)).await else {
            continue;
        };
        server.write_u16(length).await?;
        server.write_all(&question).await?;
        let answer_length = server.read_u16().await?;
        let mut answer = vec![0; usize::from(answer_length)];
        server.read_exact(&mut answer).await?;
        client.write_u16(answer_length).await?;
        return client.write_all(&answer).await;
    }
    let answer = failure(&question).unwrap_or_default();
    client.write_u16(u16::try_from(answer.len()).unwrap_or(0)).await?;
    client.write_all(&answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_from_resolv_conf() {
        let text = "search x\nnameserver 10.0.0.1\n nameserver ::1\n#nameserver 9.9.9.9\nnameserver junk\n";
        let found = parse_resolv_conf(text);
        assert_eq!(found, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }

    async fn question_to(relay: &DnsRelay, question: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(question, relay.address()).await.unwrap();
        let mut buffer = vec![0; 512];
        let length = socket.recv(&mut buffer).await.unwrap();
        buffer[..length].to_vec()
    }

    #[tokio::test]
    async fn answers_come_from_the_first_server_that_has_one() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let upstreams = vec![dead, server.local_addr().unwrap()];
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            buffer[2] = 0x81;
            server.send_to(&buffer[..length], from).await.unwrap();
        });
        let relay = DnsRelay::start(Ipv4Addr::LOCALHOST, upstreams).await.unwrap();
        let answer = question_to(&relay, &[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        assert_eq!(answer[..3], [7, 8, 0x81]);
    }

    #[tokio::test]
    async fn without_a_server_the_answer_is_servfail() {
        let relay = DnsRelay::start(Ipv4Addr::LOCALHOST, Vec::new()).await.unwrap();
        let answer = question_to(&relay, &[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        assert_eq!((answer[2] & 0x80, answer[3] & 0x0f), (0x80, SERVFAIL));
    }
}
