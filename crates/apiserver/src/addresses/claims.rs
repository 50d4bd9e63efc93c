//! What Services have and what is promised to those that are being written. Pure but for the lock.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isopod_schema::Status;
use isopod_store::{Entry, ListQuery};
use serde_json::Value;
use tokio::sync::watch;

use super::objects::{self, Step};
use crate::codec;
use crate::context::Context;
use crate::server::ApiServer;
use crate::strategy::{meta, text};

/// A number and a protocol.
pub(super) type Port = (u16, String);

/// The addresses and node ports of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) ports: BTreeSet<Port>,
}

/// A port of a Service; zero is none.
pub(super) fn port_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

/// Load balancers that keep traffic on the node where it arrives ask each node for its health.
pub(super) fn needs_health_check_port(service: &Value) -> bool {
    text(service, &["spec", "type"]) == "LoadBalancer" && text(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

impl Claims {
    /// What a Service says it has.
    pub(crate) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let listed = spec["clusterIPs"].as_array().into_iter().flatten().chain([&spec["clusterIP"]]);
        let addresses = listed.filter_map(|address| address.as_str()?.parse().ok()).collect();
        let ports = spec["ports"].as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| Some((port_number(&port["nodePort"])?, text(port, &["protocol"]).into())));
        let health = port_number(&spec["healthCheckNodePort"]).map(|number| (number, "TCP".to_owned()));
        Self { addresses, ports: ports.chain(health).collect() }
    }

    /// The same of a stored Service, read off once.
    pub(super) fn of_entry(entry: &Entry) -> Arc<Self> {
        let read = || Arc::new(codec::decode(&entry.value).map(|service| Self::of(&service)).unwrap_or_default());
        Arc::clone(codec::derived(entry).claims.get_or_init(read))
    }

    /// A Service that has had this needs nothing more.
    pub(super) fn satisfy(&self, service: &Value) -> bool {
        let spec = &service["spec"];
        let address = text(service, &["spec", "clusterIP"]);
        let exposed = match text(service, &["spec", "type"]) {
            "NodePort" => true,
            "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
            _ => false,
        };
        let mut ports = spec["ports"].as_array().into_iter().flatten();
        let complete = !exposed || ports.all(|port| port_number(&port["nodePort"]).is_some());
        let health = !needs_health_check_port(service) || port_number(&spec["healthCheckNodePort"]).is_some();
        let asked = Self::of(service);
        !address.is_empty()
            && complete
            && health
            && asked.addresses.is_subset(&self.addresses)
            && asked.ports.is_subset(&self.ports)
            && (address == "None" || !asked.addresses.is_empty())
    }
}

/// Addresses and ports that are not free.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) ports: BTreeSet<Port>,
}

impl Taken {
    fn add(&mut self, claims: &Claims) {
        self.addresses.extend(&claims.addresses);
        self.ports.extend(claims.ports.iter().cloned());
    }

    /// What all Services but the one of the request have, what is reserved, and the addresses that somebody keeps with
    /// an IPAddress of his own.
    pub(super) fn read(context: &Context<'_>, reserved: &[Arc<Claims>]) -> Result<Self, Status> {
        let own = context.key(&context.info.name);
        let list = |prefix: &str| {
            let query = ListQuery { prefix: prefix.into(), ..ListQuery::default() };
            context.server.store.list(&query).map(|list| list.entries).map_err(Status::internal)
        };
        let mut taken = Self::default();
        reserved.iter().for_each(|claims| taken.add(claims));
        for entry in list("services/")?.iter().filter(|entry| *entry.key != *own) {
            taken.add(&Claims::of_entry(entry));
        }
        for entry in list(objects::ADDRESSES)? {
            let address = entry.key.rsplit('/').next().and_then(|name| name.parse::<IpAddr>().ok());
            let is_own = || codec::object(&entry).is_some_and(|object| objects::parent_key(&object) == own);
            if let Some(address) = address.filter(|_| !is_own()) {
                taken.addresses.insert(address);
            }
        }
        Ok(taken)
    }
}

/// What is promised to Services that are being written, and how far IPAddress objects have followed the Services.
pub(crate) struct Addresses {
    reserved: Mutex<Vec<Arc<Claims>>>,
    pub(super) step: watch::Sender<Step>,
}

impl Default for Addresses {
    fn default() -> Self {
        // Nobody waits for IPAddresses before somebody keeps them.
        Self { reserved: Mutex::default(), step: watch::Sender::new(Step { services: u64::MAX, ranges: u64::MAX }) }
    }
}

impl Addresses {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Arc<Claims>>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is about to have this address.
    pub(super) fn is_reserved(&self, within: impl Fn(&IpAddr) -> bool) -> bool {
        self.lock().iter().any(|claims| claims.addresses.iter().any(&within))
    }
}

/// Keeps what was chosen for a Service from others until the Service is written, or is not.
pub(crate) struct Reservation {
    server: Arc<ApiServer>,
    claims: Arc<Claims>,
}

impl Reservation {
    pub(super) fn new(server: &Arc<ApiServer>, mut reserved: MutexGuard<'_, Vec<Arc<Claims>>>, claims: Claims) -> Self {
        let claims = Arc::new(claims);
        reserved.push(Arc::clone(&claims));
        Self { server: Arc::clone(server), claims }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.server.addresses.lock().retain(|claims| !Arc::ptr_eq(claims, &self.claims));
    }
}

/// The key of a Service.
pub(super) fn service_key(service: &Value) -> String {
    format!("services/{}/{}", meta(service, "namespace"), meta(service, "name"))
}
