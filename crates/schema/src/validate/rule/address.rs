//! Addresses and networks as texts.

use std::net::IpAddr;

const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Address and length of a network.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u32 = bits.parse().ok().filter(|length: &u32| length.to_string() == bits)?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// What is wrong with a network.
pub(super) fn cidr(text: &str) -> Vec<String> {
    if network(text).is_some() { Vec::new() } else { vec![CIDR.into()] }
}

/// What is wrong with an address.
pub(super) fn ip(text: &str) -> Vec<String> {
    if text.parse::<IpAddr>().is_ok() { Vec::new() } else { vec![IP.into()] }
}

/// `inner` is a part of `outer`, and less than all of it.
pub(super) fn is_within(inner: &str, outer: &str) -> bool {
    let (Some((inner, inner_length)), Some((outer, length))) = (network(inner), network(outer)) else { return true };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((inner, width), (outer, outer_width)) = (bits(inner), bits(outer));
    let same = |shift: u32| shift >= 128 || inner >> shift == outer >> shift;
    width == outer_width && inner_length > length && same(width - length)
}
