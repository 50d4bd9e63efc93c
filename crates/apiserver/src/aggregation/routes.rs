//! Which group versions other servers answer for: an unchanging snapshot that is swapped when the store tells of a
//! change, and when a check has found something out.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isopod_schema::{Status, Table};
use isopod_store::{Event, ListQuery, Scope};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::sync::watch;

use super::openapi::Part;
use crate::follow::{self, Follower};
use crate::server::ApiServer;
use crate::strategy::{meta, text};
use crate::{codec, proxy};

/// Where APIServices are.
pub(super) const PREFIX: &str = "apiservices.apiregistration.k8s.io/";
/// What the place of an extension depends on, besides.
const AROUND: [&str; 3] = ["services/", "endpoints/", "endpointslices.discovery.k8s.io/"];

/// A group version that another server answers for.
#[derive(Clone)]
pub(crate) struct Extension {
    pub(super) name: String,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// Highest first among versions of a group.
    pub(super) version_priority: i64,
    /// With this server's client certificate; or why there is none.
    pub(super) tls: Result<Arc<ClientConfig>, String>,
    pub(super) is_available: bool,
    /// Its resources as aggregated discovery shows them; null before the first answer.
    pub(super) discovery: Value,
    /// Where it publishes OpenAPI version 3 of the group version.
    pub(super) openapi_v3: Option<String>,
    /// What it says in version 2, or said last.
    pub(super) openapi_v2: Option<Arc<Part>>,
    /// What all of this follows from.
    pub(super) spec: Value,
}

impl Extension {
    /// The name in its certificate.
    pub(super) fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    fn read(server: &ApiServer, object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let (group, version) = (text(spec, &["group"]), text(spec, &["version"]));
        // What this server is made of cannot be taken away from it.
        let is_own = Table::builtin().groups().iter().any(|own| own.name == group);
        if !spec["service"].is_object() || is_own {
            return None;
        }
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let service = |field: &str| text(spec, &["service", field]).to_owned();
        Some(Self {
            name: meta(object, "name").into(),
            group: group.into(),
            version: version.into(),
            namespace: service("namespace"),
            service: service("name"),
            port: spec["service"]["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
            tls: tls(server, spec).map(Arc::new),
            is_available: conditions.any(|found| found["type"] == "Available" && found["status"] == "True"),
            discovery: Value::Null,
            openapi_v3: None,
            openapi_v2: None,
            spec: spec.clone(),
        })
    }
}

fn tls(server: &ApiServer, spec: &Value) -> Result<ClientConfig, String> {
    let shown = |error: &dyn std::fmt::Display| error.to_string();
    let own = &server.pki.front_proxy;
    let certificate = CertificateDer::from_pem_slice(own.certificate_pem.as_bytes()).map_err(|error| shown(&error))?;
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(|error| shown(&error))?;
    let bundle = STANDARD.decode(text(spec, &["caBundle"])).map_err(|error| shown(&error))?;
    let builder =
        if spec["insecureSkipTLSVerify"] == true { proxy::trust::anybody() } else { proxy::trust::roots(&bundle)? };
    builder.with_client_auth_cert(vec![certificate], key).map_err(|error| shown(&error))
}

/// All extensions, by group and version.
#[derive(Default)]
pub(crate) struct Routes(BTreeMap<(String, String), Arc<Extension>>);

/// Holds the routes of now.
pub(crate) type Snapshot = watch::Sender<Arc<Routes>>;

impl Routes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, group: &str, version: &str) -> Option<Arc<Extension>> {
        self.0.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Extension>> {
        self.0.values()
    }

    /// Groups with their versions, highest priority first.
    pub(super) fn groups(&self) -> BTreeMap<&str, Vec<&Arc<Extension>>> {
        let mut groups: BTreeMap<&str, Vec<&Arc<Extension>>> = BTreeMap::new();
        for extension in self.all() {
            groups.entry(&extension.group).or_default().push(extension);
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|extension| -extension.version_priority);
        }
        groups
    }

    fn concerns(&self, key: &str) -> bool {
        let mut parts = key.rsplit('/');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // Slices are named after their Service.
        self.all().any(|extension| extension.namespace == namespace && name.starts_with(&extension.service))
    }
}

/// What a check found out replaces what was known, unless the extension has become another meanwhile.
pub(super) fn learned(server: &ApiServer, found: Extension) {
    server.extensions.send_if_modified(|routes| {
        let key = (found.group.clone(), found.version.clone());
        let is_same = routes.0.get(&key).is_some_and(|known| known.spec == found.spec);
        if is_same {
            let mut map = routes.0.clone();
            map.insert(key, Arc::new(found));
            *routes = Arc::new(Routes(map));
        }
        is_same
    });
}

/// Reads what is registered, and follows it.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn start(server: &Arc<ApiServer>) -> Result<(), Status> {
    follow::start(server, Keeper).await
}

struct Keeper;

impl Follower for Keeper {
    const WHAT: &'static str = "extensions of the API";

    fn scopes(&self) -> Vec<Scope> {
        let prefixes = AROUND.into_iter().chain([PREFIX]);
        prefixes.map(|prefix| Scope::Prefix(prefix.into())).collect()
    }

    async fn settle(&mut self, server: &Arc<ApiServer>, events: Option<&[Arc<Event>]>) -> Result<(), Status> {
        let of = |prefix: &str, event: &Arc<Event>| event.entry.key.starts_with(prefix);
        let registered = events.is_none_or(|events| events.iter().any(|event| of(PREFIX, event)));
        let moved = |events: &[Arc<Event>]| {
            let routes = server.extensions.borrow();
            events.iter().any(|event| !of(PREFIX, event) && routes.concerns(&event.entry.key))
        };
        if registered && replace(server)? || events.is_some_and(moved) {
            server.extensions_check.send_replace(());
        }
        Ok(())
    }
}

/// Swaps the routes; says whether they are others now. A status that was written changes none.
fn replace(server: &ApiServer) -> Result<bool, Status> {
    let list = server.store.list(&ListQuery { prefix: PREFIX.into(), ..ListQuery::default() });
    let entries = list.map_err(Status::internal)?.entries;
    let known = server.extensions.borrow().clone();
    let mut routes = BTreeMap::new();
    let mut is_changed = false;
    for object in entries.iter().filter_map(|entry| codec::object(entry)) {
        let spec = &object["spec"];
        let key = (text(spec, &["group"]).to_owned(), text(spec, &["version"]).to_owned());
        let same = known.0.get(&key).filter(|known| known.spec == *spec).cloned();
        is_changed |= same.is_none() && spec["service"].is_object();
        let extension = same.or_else(|| Extension::read(server, &object).map(Arc::new));
        routes.extend(extension.map(|extension| (key, extension)));
    }
    if is_changed || routes.len() != known.0.len() {
        server.extensions.send_replace(Arc::new(Routes(routes)));
        return Ok(true);
    }
    Ok(false)
}
