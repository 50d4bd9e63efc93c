//! Addresses, ranges and URLs.

use std::net::IpAddr;

use super::EvalError;
use super::value::{Cel, Map};

/// A URL, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// An absolute URI or path; none when it is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !crate::crd::is_uri(text) {
            return None;
        }
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, Some(rest)),
            None => ("", None),
        };
        let (host, rest) = match rest {
            Some(rest) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
            None => ("", text),
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let host = host.rsplit('@').next().unwrap_or_default();
        Some(Self { scheme: scheme.into(), host: host.into(), path: path.into(), query: query.into() })
    }

    /// Host without port and brackets, and port.
    fn host_and_port(&self) -> (&str, &str) {
        if let Some((inside, after)) = self.host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return (inside, after.strip_prefix(':').unwrap_or_default());
        }
        self.host.rsplit_once(':').unwrap_or((&self.host, ""))
    }

    pub(super) fn get<'a>(&self, name: &str) -> Cel<'a> {
        let (host, port) = self.host_and_port();
        match name {
            "getScheme" => Cel::text(&*self.scheme),
            "getHost" => Cel::text(&*self.host),
            "getHostname" => Cel::text(host),
            "getPort" => Cel::text(port),
            "getEscapedPath" => Cel::text(&*self.path),
            _ => self.pairs(),
        }
    }

    /// Parameters with all their values.
    fn pairs<'a>(&self) -> Cel<'a> {
        let mut all: Vec<(String, Vec<Cel<'a>>)> = Vec::new();
        for part in self.query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(Cel::text(value)),
                None => all.push((name.to_owned(), vec![Cel::text(value)])),
            }
        }
        let made = all.into_iter().map(|(name, values)| (Cel::text(name), Cel::list(values))).collect();
        Cel::Map(Map::Made(std::rc::Rc::new(made)))
    }
}

/// An address without a zone and not a version 4 address in the form of version 6.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        other => Some(other),
    }
}

/// Address and prefix length.
pub(super) fn range(text: &str) -> Option<(IpAddr, u8)> {
    if !crate::crd::is_cidr(text) {
        return None;
    }
    let (ip, length) = text.split_once('/')?;
    Some((address(ip)?, length.parse().ok()?))
}

/// The address as bits at the top of 128, with its width.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

pub(super) fn masked(address: IpAddr, length: u8) -> IpAddr {
    let kept = bits(address).0 & mask(length);
    match address {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from((kept >> 96) as u32)),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from(kept)),
    }
}

pub(super) fn contains((address, length): (IpAddr, u8), other: IpAddr) -> bool {
    address.is_ipv4() == other.is_ipv4() && masked(address, length) == masked(other, length)
}

/// Member functions of addresses.
pub(super) fn of_address<'a>(name: &str, address: IpAddr) -> Result<Cel<'a>, EvalError> {
    Ok(Cel::Bool(match (name, address) {
        ("family", address) => return Ok(Cel::Int(if address.is_ipv4() { 4 } else { 6 })),
        ("isUnspecified", address) => address.is_unspecified(),
        ("isLoopback", address) => address.is_loopback(),
        ("isLinkLocalMulticast", IpAddr::V4(v4)) => v4.octets()[..3] == [224, 0, 0],
        ("isLinkLocalMulticast", IpAddr::V6(v6)) => v6.segments()[0] & 0xff0f == 0xff02,
        ("isLinkLocalUnicast", IpAddr::V4(v4)) => v4.is_link_local(),
        ("isLinkLocalUnicast", IpAddr::V6(v6)) => v6.is_unicast_link_local(),
        ("isGlobalUnicast", IpAddr::V4(v4)) => {
            !(v4.is_unspecified() || v4.is_broadcast() || v4.is_loopback() || v4.is_multicast() || v4.is_link_local())
        }
        ("isGlobalUnicast", IpAddr::V6(v6)) => {
            !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local())
        }
        _ => return Err(EvalError::Overload(name.to_owned())),
    }))
}
