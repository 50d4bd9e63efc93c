//! Ports of the node that lead to a pod (`hostPort`), for who is on the node itself: its other pods, and processes in its network.
//! Who comes from outside is led to the pod by the host and never gets here. Connections are taken and passed on; nothing is kept of
//! what goes through.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use isopod_guest_api::{ErrorKind, HostPort, PodConfig, TransportProtocol, limit};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use crate::fault::Fault;

/// Silence after which a UDP conversation is over, as conntrack has it (nf_conntrack_udp_timeout).
const SILENCE: Duration = Duration::from_secs(30);

/// Time between attempts to take a connection when that fails.
const PAUSE: Duration = Duration::from_millis(100);

/// Datagrams of one conversation that may wait; further ones are lost, as they may be anywhere.
const WAITING_DATAGRAMS: usize = 64;

/// Largest datagram over IPv4.
const DATAGRAM_BYTES: usize = 65_507;

/// The ports of one pod. Closed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Relays(Vec<JoinHandle<()>>);

impl Relays {
    /// Opens the ports that the pod asks for. After an error none is open.
    pub(crate) fn open(config: &PodConfig) -> Result<Self, Fault> {
        let mut relays = Self::default();
        for port in &config.host_ports {
            let failed = Fault::io(ErrorKind::NetworkFailed, format!("host port {} ({})", port.port, port.address));
            relays.0.push(open(port, target(config, port)?).map_err(failed)?);
        }
        Ok(relays)
    }

    /// Closes the ports; when it is done, others may open them.
    pub(crate) async fn close(mut self) {
        for task in std::mem::take(&mut self.0) {
            task.abort();
            // Cancelled is how it ends.
            let _ = task.await;
        }
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Where a port leads.
fn target(config: &PodConfig, port: &HostPort) -> Result<SocketAddr, Fault> {
    let address = config.network.as_ref().and_then(|network| network.ipv4_address.parse::<Ipv4Addr>().ok());
    let address = address.ok_or_else(|| Fault::invalid("host_ports of a pod without an address"))?;
    Ok(SocketAddrV4::new(address, number(port.pod_port)?).into())
}

fn number(port: u32) -> Result<u16, Fault> {
    let number = u16::try_from(port).ok().filter(|number| *number != 0);
    number.ok_or_else(|| Fault::invalid(format!("port {port} is not 1 to 65535")))
}

fn open(port: &HostPort, target: SocketAddr) -> io::Result<JoinHandle<()>> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    let address: Ipv4Addr = port.address.parse().map_err(|_| invalid("not an IPv4 address".into()))?;
    let from = SocketAddrV4::new(address, number(port.port).map_err(|fault| invalid(fault.to_string()))?);
    match port.protocol() {
        TransportProtocol::Tcp => {
            let listener = std::net::TcpListener::bind(from)?;
            listener.set_nonblocking(true)?;
            Ok(tokio::spawn(connections(TcpListener::from_std(listener)?, target)))
        }
        TransportProtocol::Udp => {
            let socket = std::net::UdpSocket::bind(from)?;
            socket.set_nonblocking(true)?;
            Ok(tokio::spawn(datagrams(Arc::new(UdpSocket::from_std(socket)?), target)))
        }
        TransportProtocol::Unspecified => Err(invalid("neither TCP nor UDP".into())),
    }
}

async fn connections(listener: TcpListener, target: SocketAddr) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= limit::RELAYED {
            open.join_next().await;
        }
        let Ok((mut from, _)) = listener.accept().await else {
            // Out of descriptors, mostly; some come back when connections end.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        open.spawn(async move {
            // Who connects is told by the end of the connection that the pod does not listen.
            if let Ok(mut to) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}

async fn datagrams(socket: Arc<UdpSocket>, target: SocketAddr) {
    let mut conversations: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // An error is that of an earlier answer, whose receiver was gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if conversations.get(&from).is_none_or(mpsc::Sender::is_closed) {
            conversations.retain(|_, conversation| !conversation.is_closed());
            while tasks.try_join_next().is_some() {}
            if conversations.len() >= limit::RELAYED {
                continue;
            }
            let (sender, receiver) = mpsc::channel(WAITING_DATAGRAMS);
            conversations.insert(from, sender);
            let socket = socket.clone();
            tasks.spawn(async move {
                // What cannot be sent is lost.
                let _ = converse(receiver, &socket, from, target).await;
            });
        }
        if let Some(conversation) = conversations.get(&from) {
            let _ = conversation.try_send(buffer[..length].to_vec());
        }
    }
}

/// Passes datagrams on in both directions until neither side says anything.
async fn converse(
    mut from_client: mpsc::Receiver<Vec<u8>>,
    socket: &UdpSocket,
    client: SocketAddr,
    target: SocketAddr,
) -> io::Result<()> {
    let pod = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    pod.connect(target).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        tokio::select! {
            datagram = from_client.recv() => match datagram {
                Some(datagram) => drop(pod.send(&datagram).await?),
                None => return Ok(()),
            },
            length = pod.recv(&mut buffer) => drop(socket.send_to(&buffer[..length?], client).await?),
            () = tokio::time::sleep(SILENCE) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_guest_api::NetworkConfig;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn config(protocol: TransportProtocol, address: &str, port: u16, pod_port: u16) -> PodConfig {
        let mut host_port =
            HostPort { address: address.into(), port: port.into(), pod_port: pod_port.into(), protocol: 0 };
        host_port.set_protocol(protocol);
        let network = NetworkConfig { ipv4_address: "127.0.0.1".into(), ..NetworkConfig::default() };
        PodConfig { host_ports: vec![host_port], network: Some(network), ..PodConfig::default() }
    }

    fn free() -> u16 {
        std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn connections_reach_the_pod_until_its_ports_are_closed() {
        let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free();
        let config = config(TransportProtocol::Tcp, "127.0.0.2", port, pod.local_addr().unwrap().port());
        let relays = Relays::open(&config).unwrap();
        assert!(Relays::open(&config).unwrap_err().to_string().contains(&format!("host port {port} (127.0.0.2)")));
        let mut client = TcpStream::connect(("127.0.0.2", port)).await.unwrap();
        let (mut server, _) = pod.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = String::new();
        server.read_to_string(&mut said).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        drop(server);
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "pingpong");
        relays.close().await;
        Relays::open(&config).unwrap().close().await;
        assert!(TcpStream::connect(("127.0.0.2", port)).await.is_err());
    }

    #[tokio::test]
    async fn datagrams_find_their_way_back() {
        let pod = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = free();
        let config = config(TransportProtocol::Udp, "0.0.0.0", port, pod.local_addr().unwrap().port());
        let _relays = Relays::open(&config).unwrap();
        let mut buffer = [0; 16];
        for name in ["a", "b"] {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(("127.0.0.1", port)).await.unwrap();
            for turn in 0..2 {
                client.send(format!("{name}{turn}").as_bytes()).await.unwrap();
                let (length, from) = pod.recv_from(&mut buffer).await.unwrap();
                pod.send_to(&buffer[..length], from).await.unwrap();
                let length = client.recv(&mut buffer).await.unwrap();
                assert_eq!(&buffer[..length], format!("{name}{turn}").as_bytes());
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_port_is_refused() {
        for (config, expected) in [
            (config(TransportProtocol::Tcp, "127.0.0.1", 0, 80), "1 to 65535"),
            (config(TransportProtocol::Tcp, "127.0.0.1", 80, 0), "1 to 65535"),
            (config(TransportProtocol::Tcp, "::1", 80, 80), "IPv4"),
            (config(TransportProtocol::Unspecified, "127.0.0.1", 80, 80), "neither"),
            (PodConfig { network: None, ..config(TransportProtocol::Tcp, "127.0.0.1", 80, 80) }, "without an address"),
        ] {
            let fault = Relays::open(&config).unwrap_err();
            assert!(fault.to_string().contains(expected), "{fault}");
        }
    }
}
