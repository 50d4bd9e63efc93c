//! Rules for Isopod's own kinds. Closed sets and required texts are in their schemas.

use std::net::Ipv4Addr;

use isopod_types::{Quantity, instances};
use serde_json::Value;

use super::{Errors, FieldError};
use crate::table::Kind;
use crate::walk;

/// Limits of the real service.
const MAX_SELECTORS: usize = 5;
const MAX_LABELS: usize = 5;

/// Sizes of a node's disk, in GiB.
const MIN_VOLUME_GIB: i64 = 4;
const MAX_VOLUME_GIB: i64 = 16_384;

pub(super) fn check(kind: &Kind, object: &Value, errors: &mut Errors) {
    match kind.plural.as_str() {
        "fargateprofiles" => profile(object, errors),
        "clusters" => cluster(object, errors),
        "nodegroups" => node_group(object, errors),
        "usagerecords" => usage(object, errors),
        _ => {}
    }
}

fn profile(object: &Value, errors: &mut Errors) {
    let selectors = walk::items(object, &["spec", "selectors"]);
    if selectors.is_empty() {
        errors.push(FieldError::required("spec.selectors", "at least one selector is required"));
    }
    if selectors.len() > MAX_SELECTORS {
        errors.push(FieldError::too_many("spec.selectors", selectors.len(), MAX_SELECTORS));
    }
    for (at, selector) in selectors.iter().enumerate() {
        let labels = walk::at(selector, &["labels"]).and_then(Value::as_object).map_or(0, serde_json::Map::len);
        if labels > MAX_LABELS {
            errors.push(FieldError::too_many(format!("spec.selectors[{at}].labels"), labels, MAX_LABELS));
        }
    }
}

fn node_group(object: &Value, errors: &mut Errors) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let number = |field: &str| spec.get(field).and_then(Value::as_i64);
    for field in ["minSize", "maxSize", "desiredSize"] {
        errors.non_negative(spec, field, "spec");
    }
    let instance = walk::text(spec, &["instanceType"]);
    if instances::find(instance).is_none() {
        let rule = format!("must be one of {}", instances::names().join(", "));
        errors.push(FieldError::invalid("spec.instanceType", instance, rule));
    }
    let (min, max) = (number("minSize").unwrap_or(0), number("maxSize").unwrap_or(i64::MAX));
    if min > max {
        errors.push(FieldError::invalid("spec.minSize", min, "must not be greater than maxSize"));
    }
    if let Some(desired) = number("desiredSize").filter(|desired| !(min..=max).contains(desired)) {
        errors.push(FieldError::invalid("spec.desiredSize", desired, "must be between minSize and maxSize"));
    }
    if number("volumeSizeGib").is_some_and(|gib| !(MIN_VOLUME_GIB..=MAX_VOLUME_GIB).contains(&gib)) {
        let rule = format!("must be between {MIN_VOLUME_GIB} and {MAX_VOLUME_GIB}");
        errors.push(FieldError::invalid("spec.volumeSizeGib", number("volumeSizeGib").unwrap_or(0), rule));
    }
}

fn cluster(object: &Value, errors: &mut Errors) {
    let text = |path: &[&str]| walk::text(object, path).to_owned();
    network(&text(&["spec", "vpc", "cidr"]), "spec.vpc.cidr", errors);
    network(&text(&["spec", "serviceCidr"]), "spec.serviceCidr", errors);
    for (at, subnet) in walk::items(object, &["spec", "vpc", "subnets"]).iter().enumerate() {
        network(walk::text(subnet, &["cidr"]), &format!("spec.vpc.subnets[{at}].cidr"), errors);
    }
    for (at, server) in walk::items(object, &["spec", "dnsUpstreams"]).iter().filter_map(Value::as_str).enumerate() {
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        if host.parse::<std::net::IpAddr>().is_err() && server.parse::<std::net::IpAddr>().is_err() {
            let rule = "must be an IP address, with an optional port";
            errors.push(FieldError::invalid(format!("spec.dnsUpstreams[{at}]"), server, rule));
        }
    }
    let overhead = text(&["spec", "fargate", "memoryOverhead"]);
    if overhead.parse::<Quantity>().is_ok_and(|overhead| overhead < Quantity::ZERO) {
        let rule = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.fargate.memoryOverhead", overhead, rule));
    }
    for field in ["cpuOvercommit", "memoryOvercommit"] {
        let factor = walk::at(object, &["spec", "fargate", field]).and_then(Value::as_i64);
        if let Some(factor) = factor.filter(|factor| *factor < 1) {
            errors.push(FieldError::invalid(format!("spec.fargate.{field}"), factor, "must be at least 1"));
        }
    }
}

/// IPv4 addresses with a prefix length; absent is fine.
fn network(text: &str, path: &str, errors: &mut Errors) {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        Some((address.parse::<Ipv4Addr>().ok()?, bits.parse::<u8>().ok().filter(|bits| *bits <= 32)?))
    });
    if !text.is_empty() && parsed.is_none() {
        errors.push(FieldError::invalid(path, text, "must be an IPv4 network, such as 192.168.0.0/16"));
    }
}

fn usage(object: &Value, errors: &mut Errors) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    for field in ["vcpuMillis", "memoryMib", "ephemeralStorageGib"] {
        errors.non_negative(spec, field, "spec");
    }
    // Both texts are in canonical form, of one length: their order is the order of time.
    let (start, end) = (walk::text(spec, &["startTime"]), walk::text(spec, &["endTime"]));
    if !end.is_empty() && end < start {
        errors.push(FieldError::invalid("spec.endTime", end, "must not be before startTime"));
    }
}
