//! Rules for IPAddresses and ServiceCIDRs.

use std::net::IpAddr;

use serde_json::Value;

use super::{Errors, FieldError, IMMUTABLE};
use crate::names;
use crate::table::Kind;
use crate::walk;

const RANGES: usize = 2;

pub(super) fn check(kind: &Kind, object: &Value, errors: &mut Errors) {
    match kind.plural.as_str() {
        "ipaddresses" => parent(object, errors),
        "servicecidrs" => ranges(walk::items(object, &["spec", "cidrs"]), errors),
        _ => {}
    }
}

fn parent(address: &Value, errors: &mut Errors) {
    let path = "spec.parentRef";
    let Some(parent) = walk::at(address, &["spec", "parentRef"]) else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    let group = walk::text(parent, &["group"]);
    if !group.is_empty() {
        errors.invalid_all(&format!("{path}.group"), group, names::subdomain(group));
    }
    for field in ["resource", "name"] {
        match walk::text(parent, &[field]) {
            "" => errors.push(FieldError::required(format!("{path}.{field}"), "")),
            text => errors.invalid_all(&format!("{path}.{field}"), text, names::path_segment(text)),
        }
    }
    let namespace = walk::text(parent, &["namespace"]);
    if !namespace.is_empty() {
        errors.invalid_all(&format!("{path}.namespace"), namespace, names::path_segment(namespace));
    }
}

fn ranges(list: &[Value], errors: &mut Errors) {
    let path = "spec.cidrs";
    if list.is_empty() {
        errors.push(FieldError::required(path, "at least one CIDR required"));
    } else if list.len() > RANGES {
        errors.push(FieldError::invalid(path, list.to_vec(), "may only hold up to 2 values"));
    }
    let texts = || list.iter().filter_map(Value::as_str).enumerate();
    for (at, text) in texts() {
        if let Err(why) = network(text) {
            errors.push(FieldError::invalid(format!("{path}[{at}]"), text, why));
        }
    }
    let families: Vec<bool> = texts().filter_map(|(_, text)| network(text).ok()).map(|(ip, _)| ip.is_ipv4()).collect();
    if let [first, second] = families[..]
        && first == second
    {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(path, list.to_vec(), text));
    }
}

/// A network in canonical form.
fn network(text: &str) -> Result<(IpAddr, u32), &'static str> {
    const RULE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let (address, bits) = text.split_once('/').ok_or(RULE)?;
    let address: IpAddr = address.parse().map_err(|_| RULE)?;
    let length: u32 = bits.parse().map_err(|_| RULE)?;
    let (value, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    if length > width || bits != length.to_string() {
        return Err(RULE);
    }
    let host = width - length;
    if host < 128 && value & ((1 << host) - 1) != 0 || host == 128 && value != 0 {
        return Err("must not have bits set beyond the prefix length");
    }
    Ok((address, length))
}

/// A range stays; a second family may be added.
pub(super) fn range_changes(object: &Value, old: &Value, errors: &mut Errors) {
    let (new, before) = (walk::items(object, &["spec", "cidrs"]), walk::items(old, &["spec", "cidrs"]));
    let grows = before.len() == 1 && new.len() == RANGES;
    if new.len() != before.len() && !grows {
        errors.push(FieldError::invalid("spec.cidrs", new.to_vec(), IMMUTABLE));
        return;
    }
    for (at, (new, before)) in new.iter().zip(before).enumerate() {
        if new != before {
            errors.push(FieldError::invalid(format!("spec.cidrs[{at}]"), new.clone(), IMMUTABLE));
        }
    }
}
