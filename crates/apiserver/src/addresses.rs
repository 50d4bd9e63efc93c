//! Service addresses and node ports: chosen from the ready ranges, unique. What is taken is read from the Services
//! themselves and from IPAddress objects, so there is nothing that could leak; what is chosen but not written yet is
//! reserved in memory until the write is over. IPAddress objects follow in [`objects`].

mod claims;
pub(crate) mod objects;
mod ranges;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use isopod_schema::{FieldError, Status};
use serde_json::{Value, json};

pub(crate) use claims::{Addresses, Claims};
use claims::{Reservation, Taken};

use crate::context::Context;
use crate::strategy::{meta, text};

/// Errors of one Service, as they are found.
type Errors = Vec<FieldError>;

/// Gives a Service what it needs and does not have yet. What is chosen stays reserved until the answer is dropped,
/// which must not be before the Service is written. Other kinds need nothing.
///
/// # Errors
/// 422 for an address or port that is taken or outside the range, 500 when none is left.
pub(crate) fn allocate(
    context: &Context<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Option<Reservation>, Status> {
    if !context.kind.is("", "services") || text(object, &["spec", "type"]) == "ExternalName" {
        return Ok(None);
    }
    let had = old.map(Claims::of).unwrap_or_default();
    let mut errors = Vec::new();
    families(object, old, &mut errors);
    if had.satisfy(object) {
        return refuse(context, object, &errors).map(|()| None);
    }
    let reserved = context.server.addresses.lock();
    let mut choice = Choice { context, taken: Taken::read(context, &reserved)?, had, errors };
    choice.address(object)?;
    choice.node_ports(object)?;
    choice.health_check_port(object)?;
    refuse(context, object, &choice.errors)?;
    Ok(Some(Reservation::new(&context.server, reserved, Claims::of(object))))
}

fn refuse(context: &Context<'_>, object: &Value, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(context.kind, meta(object, "name"), errors)) }
}

/// One family, which every Service of the cluster has.
fn families(object: &mut Value, old: Option<&Value>, errors: &mut Errors) {
    let before = old.map_or(&Value::Null, |old| &old["spec"]["clusterIPs"]);
    let is_new = old.is_none();
    let spec = &mut object["spec"];
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let text = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", text));
    }
    for (at, family) in spec["ipFamilies"].as_array().into_iter().flatten().enumerate() {
        if family != "IPv4" {
            let path = format!("spec.ipFamilies[{at}]");
            errors.push(FieldError::invalid(path, family.clone(), "not configured on this cluster"));
        }
    }
    let one = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    // Who changes the one address need not say it twice.
    let list = spec["clusterIPs"].as_array().filter(|_| spec["clusterIPs"] != *before);
    if list.is_some_and(|list| list.len() > 1) {
        let text = "may hold one value only: this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.clusterIPs", spec["clusterIPs"].clone(), text));
    }
    if list.and_then(|list| list.first()).is_some_and(|first| one.is_empty() || *first != one) {
        let text = match one.as_str() {
            "" => "must be empty when `clusterIP` is not specified",
            _ => "first value must match `clusterIP`",
        };
        errors.push(FieldError::invalid("spec.clusterIPs", spec["clusterIPs"].clone(), text));
    }
    if one == "None" || (!is_new && !one.is_empty()) {
        spec["clusterIPs"] = json!([one]);
    }
    for (field, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
        if spec[field].is_null() {
            spec[field] = value;
        }
    }
}

/// A Service on its way to what it needs.
struct Choice<'a, 't> {
    context: &'a Context<'t>,
    /// What nobody else may have.
    taken: Taken,
    /// What the Service has already.
    had: Claims,
    errors: Errors,
}

impl Choice<'_, '_> {
    fn address(&mut self, object: &mut Value) -> Result<(), Status> {
        let asked = text(object, &["spec", "clusterIP"]).to_owned();
        let chosen = match asked.as_str() {
            "None" => asked,
            "" => {
                let free = ranges::free_address(&ranges::ready(&self.context.server)?, &self.taken);
                free.ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?.to_string()
            }
            _ => {
                self.asked_address(&asked)?;
                asked
            }
        };
        object["spec"]["clusterIP"] = chosen.as_str().into();
        object["spec"]["clusterIPs"] = json!([chosen]);
        Ok(())
    }

    fn asked_address(&mut self, asked: &str) -> Result<(), Status> {
        let Ok(address) = asked.parse::<Ipv4Addr>() else { return Ok(()) };
        if self.had.addresses.contains(&IpAddr::V4(address)) {
            return Ok(());
        }
        let ranges = ranges::ready(&self.context.server)?;
        let why = if !ranges.iter().any(|range| ranges::holds(range, address)) {
            let valid: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            let valid = valid.join(",");
            format!("the provided IP ({asked}) is not in the valid range. The range of valid IPs is {valid}")
        } else if self.taken.addresses.contains(&IpAddr::V4(address)) {
            "provided IP is already allocated".to_owned()
        } else {
            return Ok(());
        };
        let detail = format!("failed to allocate IP {asked}: {why}");
        self.errors.push(FieldError::invalid("spec.clusterIPs", json!([asked]), detail));
        Ok(())
    }

    /// Ports that differ in nothing but the protocol share a node port where they can.
    fn node_ports(&mut self, object: &mut Value) -> Result<(), Status> {
        let wanted = match text(object, &["spec", "type"]) {
            "NodePort" => true,
            "LoadBalancer" => object["spec"]["allocateLoadBalancerNodePorts"] != false,
            _ => return Ok(()),
        };
        let list = object["spec"].get_mut("ports").and_then(Value::as_array_mut);
        let ports: Vec<&mut Value> = list.into_iter().flatten().collect();
        let mut by_port: BTreeMap<u64, u16> = BTreeMap::new();
        for port in &ports {
            if let Some(number) = claims::port_number(&port["nodePort"]) {
                by_port.entry(port["port"].as_u64().unwrap_or(0)).or_insert(number);
            }
        }
        for (at, port) in ports.into_iter().enumerate() {
            let protocol = text(port, &["protocol"]).to_owned();
            let chosen = match (claims::port_number(&port["nodePort"]), wanted) {
                (Some(asked), _) => {
                    self.asked_port(asked, &protocol, format!("spec.ports[{at}].nodePort"));
                    asked
                }
                (None, false) => continue,
                (None, true) => {
                    let sibling = by_port.get(&port["port"].as_u64().unwrap_or(0)).copied();
                    let sibling = sibling.filter(|number| !self.taken.ports.contains(&(*number, protocol.clone())));
                    sibling.map_or_else(|| self.any_port(&protocol), Ok)?
                }
            };
            by_port.insert(port["port"].as_u64().unwrap_or(0), chosen);
            port["nodePort"] = chosen.into();
            self.taken.ports.insert((chosen, protocol));
        }
        Ok(())
    }

    fn asked_port(&mut self, asked: u16, protocol: &str, path: String) {
        if let Some(why) = self.port_problem(asked, protocol) {
            self.errors.push(FieldError::invalid(path, asked, why));
        }
    }

    fn port_problem(&self, asked: u16, protocol: &str) -> Option<&'static str> {
        let port = (asked, protocol.to_owned());
        if self.taken.ports.contains(&port) {
            Some("provided port is already allocated")
        } else if !ranges::NODE_PORTS.contains(&asked) && !self.had.ports.contains(&port) {
            Some("provided port is not in the valid range. The range of valid ports is 30000-32767")
        } else {
            None
        }
    }

    fn any_port(&self, protocol: &str) -> Result<u16, Status> {
        let free = |port: &u16| !self.taken.ports.contains(&(*port, protocol.to_owned()));
        ranges::free_port(free).ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    }

    /// The port under which a load balancer asks a node whether it has endpoints of its own.
    fn health_check_port(&mut self, object: &mut Value) -> Result<(), Status> {
        if !claims::needs_health_check_port(object) {
            return Ok(());
        }
        let chosen = match claims::port_number(&object["spec"]["healthCheckNodePort"]) {
            None => self.any_port("TCP")?,
            Some(asked) => match self.port_problem(asked, "TCP") {
                None => asked,
                Some(why) => {
                    let text = format!("failed to allocate requested HealthCheck NodePort {asked}: {why}");
                    return Err(Status::internal(text));
                }
            },
        };
        object["spec"]["healthCheckNodePort"] = chosen.into();
        Ok(())
    }
}
