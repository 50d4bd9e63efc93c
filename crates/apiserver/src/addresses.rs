//! Service addresses and node ports: chosen from the cluster's ranges, unique. Choosing and writing happen under one
//! lock, and what is taken is read from the Services themselves, so there is nothing to keep in step.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use isopod_schema::{FieldError, Status};
use isopod_store::ListQuery;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use crate::codec;
use crate::context::Context;
use crate::strategy::{meta, text};

const NODE_PORTS: RangeInclusive<u64> = 30_000..=32_767;

/// Addresses and ports that Services have.
#[derive(Default)]
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<(u64, String)>,
}

/// Gives a Service what it needs and does not have yet. The guard is held until the Service is written; other kinds
/// need none.
///
/// # Errors
/// 422 for an address or port that is taken or outside the range, 500 when none is left.
pub(crate) async fn allocate(context: &Context<'_>, object: &mut Value) -> Result<Option<OwnedMutexGuard<()>>, Status> {
    if !context.kind.is("", "services") || text(object, &["spec", "type"]) == "ExternalName" {
        return Ok(None);
    }
    let turn = Arc::clone(&context.server.addresses).lock_owned().await;
    let taken = taken(context, meta(object, "name"))?;
    let mut errors = Vec::new();
    address(context, object, &taken, &mut errors)?;
    if matches!(text(object, &["spec", "type"]), "NodePort" | "LoadBalancer") {
        ports(object, taken, &mut errors)?;
    }
    if errors.is_empty() { Ok(Some(turn)) } else { Err(Status::invalid(context.kind, meta(object, "name"), &errors)) }
}

/// What all Services but this one have.
fn taken(context: &Context<'_>, but: &str) -> Result<Taken, Status> {
    let own = context.key(but);
    let query = ListQuery { prefix: "services/".into(), ..ListQuery::default() };
    let list = context.server.store.list(&query).map_err(Status::internal)?;
    let mut taken = Taken::default();
    for entry in list.entries.iter().filter(|entry| *entry.key != *own) {
        let service = codec::decode(&entry.value)?;
        taken.addresses.extend(text(&service, &["spec", "clusterIP"]).parse::<Ipv4Addr>());
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            let number = port["nodePort"].as_u64().unwrap_or(0);
            taken.ports.insert((number, text(port, &["protocol"]).to_owned()));
        }
    }
    Ok(taken)
}

fn address(
    context: &Context<'_>,
    object: &mut Value,
    taken: &Taken,
    errors: &mut Vec<FieldError>,
) -> Result<(), Status> {
    let range = context.server.config.service_cidr;
    let asked = text(object, &["spec", "clusterIP"]).to_owned();
    let chosen = match asked.as_str() {
        "None" => "None".to_owned(),
        "" => free_address(range, taken)
            .ok_or_else(|| Status::internal(format!("no free address in {range}")))?
            .to_string(),
        asked => {
            let valid = asked.parse().is_ok_and(|address: Ipv4Addr| range.contains(&address));
            let free = valid && asked.parse().is_ok_and(|address| !taken.addresses.contains(&address));
            if !valid {
                let detail =
                    format!("failed to allocate IP {asked}: the provided IP is not in the valid range {range}");
                errors.push(FieldError::invalid("spec.clusterIPs", json!([asked]), detail));
            } else if !free {
                let detail = format!("failed to allocate IP {asked}: provided IP is already allocated");
                errors.push(FieldError::invalid("spec.clusterIPs", json!([asked]), detail));
            }
            asked.to_owned()
        }
    };
    let spec = &mut object["spec"];
    spec["clusterIP"] = chosen.as_str().into();
    spec["clusterIPs"] = json!([chosen]);
    for (field, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
        if spec[field].is_null() {
            spec[field] = value;
        }
    }
    Ok(())
}

/// The first address is the API server's; after it any free one, beginning at a random place.
fn free_address(range: ipnet::Ipv4Net, taken: &Taken) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()) + 2;
    let count = u32::from(range.broadcast()).checked_sub(first)?;
    let offset = u32::from_le_bytes(crate::create::random()[..4].try_into().ok()?) % count.max(1);
    let candidates = (0..count).map(|step| Ipv4Addr::from(first + (offset + step) % count));
    candidates.into_iter().find(|address| !taken.addresses.contains(address))
}

fn ports(object: &mut Value, mut taken: Taken, errors: &mut Vec<FieldError>) -> Result<(), Status> {
    let list = object["spec"].get_mut("ports").and_then(Value::as_array_mut);
    for (number, port) in list.into_iter().flatten().enumerate() {
        let protocol = text(port, &["protocol"]).to_owned();
        let asked = port["nodePort"].as_u64().filter(|asked| *asked > 0);
        let is_free = |candidate: &u64| !taken.ports.contains(&(*candidate, protocol.clone()));
        let chosen = match asked {
            None => NODE_PORTS.into_iter().find(is_free).ok_or_else(|| Status::internal("no free node port"))?,
            Some(asked) => {
                let path = format!("spec.ports[{number}].nodePort");
                if !NODE_PORTS.contains(&asked) {
                    let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                    errors.push(FieldError::invalid(path, asked, detail));
                } else if !is_free(&asked) {
                    errors.push(FieldError::invalid(path, asked, "provided port is already allocated"));
                }
                asked
            }
        };
        port["nodePort"] = chosen.into();
        taken.ports.insert((chosen, protocol));
    }
    Ok(())
}
