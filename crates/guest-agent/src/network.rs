//! The pod's interface: hardware address, address, routes. By ioctl, which costs a fraction of what a netlink library would
//! in a guest that does it once.
#![expect(unsafe_code, reason = "interface ioctls take C structures")]

use std::{
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use isopod_guest_api::{ErrorKind, NetworkConfig};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::fault::Fault;

/// What `configure` sets, checked.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    mac: Option<[u8; 6]>,
    address: Ipv4Addr,
    mask: Ipv4Addr,
    gateway: Ipv4Addr,
    mtu: i32,
}

/// Sets the pod's interface up.
pub(crate) fn configure(config: &NetworkConfig) -> Result<(), Fault> {
    let settings = parse(config)?;
    let interface = interface().map_err(Fault::io(ErrorKind::NetworkFailed, "interface"))?;
    apply(&interface, &settings).map_err(Fault::io(ErrorKind::NetworkFailed, format!("interface {interface}")))
}

/// As `configure`, for an interface by name.
pub(crate) fn configure_interface(interface: &str, config: &NetworkConfig) -> Result<(), Fault> {
    let settings = parse(config)?;
    apply(interface, &settings).map_err(Fault::io(ErrorKind::NetworkFailed, format!("interface {interface}")))
}

/// Passes on what is not for this machine, and answers on its link for those behind it.
pub(crate) fn forward() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    without_ipv6("default")?;
    match interface() {
        Ok(interface) => answer_for_others(&interface),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// On this interface, who asks for an address that another interface leads to gets this machine's.
fn answer_for_others(interface: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/proxy_arp"), "1")?;
    // The kernel waits a while before it answers for another; here nobody else could.
    fs::write(format!("/proc/sys/net/ipv4/neigh/{interface}/proxy_delay"), "0")
}

/// Makes an interface of this machine lead to a pod: a route to its address, and answers for whom it asks for.
pub(crate) fn lead(interface: &str, config: &NetworkConfig) -> io::Result<()> {
    let address = config.ipv4_address.parse().map_err(io::Error::other)?;
    let socket = socket()?;
    set_flags(&socket, interface, libc::IFF_UP | libc::IFF_RUNNING)?;
    answer_for_others(interface)?;
    add_route(&socket, interface, address, None)
}

/// Takes address and routes away.
pub(crate) fn forget() -> io::Result<()> {
    let (interface, socket) = (interface()?, socket()?);
    // Down, it has no routes; the unspecified address takes the old one away.
    set_address(&socket, &interface, libc::SIOCSIFADDR, Ipv4Addr::UNSPECIFIED)?;
    set_flags(&socket, &interface, 0)
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    set_flags(&socket()?, "lo", libc::IFF_UP | libc::IFF_RUNNING)
}

/// Pods have IPv4 addresses: without this, every interface that comes up announces an IPv6 address that nobody asked for.
pub(crate) fn only_ipv4() -> io::Result<()> {
    interface().map_or(Ok(()), |interface| without_ipv6(&interface))
}

/// `all` and `default` mean every interface, and every later one.
pub(crate) fn without_ipv6(interface: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn parse(config: &NetworkConfig) -> Result<Settings, Fault> {
    let address = |field: &str, text: &str| {
        text.parse::<Ipv4Addr>().map_err(|_| Fault::invalid(format!("network.{field} {text:?} is not an IPv4 address")))
    };
    if config.prefix_length > 32 {
        return Err(Fault::invalid(format!("network.prefix_length {} is above 32", config.prefix_length)));
    }
    let mac = match config.mac.as_str() {
        "" => None,
        text => Some(
            parse_mac(text).ok_or_else(|| Fault::invalid(format!("network.mac {text:?} is not a hardware address")))?,
        ),
    };
    Ok(Settings {
        mac,
        address: address("ipv4_address", &config.ipv4_address)?,
        mask: Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - config.prefix_length).unwrap_or(0)),
        gateway: address("gateway", &config.gateway)?,
        mtu: i32::try_from(config.mtu)
            .ok()
            .filter(|mtu| *mtu <= 65_535)
            .ok_or_else(|| Fault::invalid("network.mtu is above 65535"))?,
    })
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let parts: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2))
        .collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// The one interface that is not the loopback.
fn interface() -> io::Result<String> {
    for entry in fs::read_dir("/sys/class/net")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "lo" {
            return Ok(name);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "there is none"))
}

fn apply(interface: &str, settings: &Settings) -> io::Result<()> {
    let socket = socket()?;
    if let Some(mac) = settings.mac {
        // The device refuses a new hardware address while it is up.
        set_flags(&socket, interface, 0)?;
        set_mac(&socket, interface, mac)?;
    }
    if settings.mtu > 0 {
        let mut request = request(interface)?;
        request.ifr_ifru.ifru_mtu = settings.mtu;
        interface_ioctl(&socket, libc::SIOCSIFMTU, &request)?;
    }
    set_address(&socket, interface, libc::SIOCSIFADDR, settings.address)?;
    set_address(&socket, interface, libc::SIOCSIFNETMASK, settings.mask)?;
    set_flags(&socket, interface, libc::IFF_UP | libc::IFF_RUNNING)?;
    add_route(&socket, interface, settings.gateway, None)?;
    add_route(&socket, interface, Ipv4Addr::UNSPECIFIED, Some(settings.gateway))
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

fn request(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid `ifreq`: integers, and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the name's end.
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *target = byte.cast_signed();
    }
    Ok(request)
}

fn interface_ioctl(socket: &OwnedFd, operation: libc::Ioctl, request: &libc::ifreq) -> io::Result<()> {
    // SAFETY: the interface operations used here read one `ifreq`, which lives until the call returns.
    match unsafe { libc::ioctl(socket.as_raw_fd(), operation, std::ptr::from_ref(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_flags(socket: &OwnedFd, interface: &str, flags: libc::c_int) -> io::Result<()> {
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    interface_ioctl(socket, libc::SIOCSIFFLAGS, &request)
}

fn set_mac(socket: &OwnedFd, interface: &str, mac: [u8; 6]) -> io::Result<()> {
    let mut request = request(interface)?;
    let mut data = [0; 14];
    for (target, byte) in data.iter_mut().zip(mac) {
        *target = byte.cast_signed();
    }
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data };
    interface_ioctl(socket, libc::SIOCSIFHWADDR, &request)
}

fn set_address(socket: &OwnedFd, interface: &str, operation: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_addr = socket_address(address);
    interface_ioctl(socket, operation, &request)
}

/// An IPv4 address in the generic structure: family, port 0, address in network order.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (target, byte) in data[2..6].iter_mut().zip(address.octets()) {
        *target = byte.cast_signed();
    }
    libc::sockaddr { sa_family: AddressFamily::INET.as_raw(), sa_data: data }
}

/// A route to one host on the link, or the default route through a gateway. One that is there already is no error.
fn add_route(socket: &OwnedFd, interface: &str, to: Ipv4Addr, gateway: Option<Ipv4Addr>) -> io::Result<()> {
    let mut device = [0_u8; 16];
    device[..interface.len().min(15)].copy_from_slice(&interface.as_bytes()[..interface.len().min(15)]);
    // SAFETY: all-zero bytes are a valid `rtentry`: integers, addresses and a null pointer.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(to);
    route.rt_dev = device.as_mut_ptr().cast();
    match gateway {
        Some(gateway) => {
            route.rt_gateway = socket_address(gateway);
            route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
            route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        }
        None => {
            route.rt_genmask = socket_address(Ipv4Addr::BROADCAST);
            route.rt_flags = libc::RTF_UP | libc::RTF_HOST;
        }
    }
    // SAFETY: SIOCADDRT reads one `rtentry` and the name it points to; both live until the call returns.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, std::ptr::from_ref(&route)) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetworkConfig {
        NetworkConfig {
            mac: "52:54:00:12:34:56".into(),
            ipv4_address: "192.168.3.7".into(),
            prefix_length: 32,
            gateway: "169.254.1.1".into(),
            mtu: 1500,
            ..NetworkConfig::default()
        }
    }

    type Change = fn(&mut NetworkConfig);

    #[test]
    fn settings_are_checked_by_field() {
        let settings = parse(&config()).unwrap();
        assert_eq!(settings.mac, Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(settings.mask, Ipv4Addr::BROADCAST);
        assert_eq!(
            parse(&NetworkConfig { prefix_length: 20, ..config() }).unwrap().mask,
            Ipv4Addr::new(255, 255, 240, 0)
        );
        assert_eq!(parse(&NetworkConfig { prefix_length: 0, ..config() }).unwrap().mask, Ipv4Addr::UNSPECIFIED);
        let wrong: [(Change, &str); 6] = [
            (|config| config.mac = "52:54".into(), "mac"),
            (|config| config.mac = "+2:54:00:12:34:567".into(), "mac"),
            (|config| config.ipv4_address = "::1".into(), "ipv4_address"),
            (|config| config.gateway.clear(), "gateway"),
            (|config| config.prefix_length = 33, "prefix_length"),
            (|config| config.mtu = 70_000, "mtu"),
        ];
        for (change, field) in wrong {
            let mut config = config();
            change(&mut config);
            let fault = parse(&config).unwrap_err();
            assert!(fault.0.message.contains(field), "{fault}");
        }
    }
}
