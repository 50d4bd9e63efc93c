//! What the server counts about itself, in Prometheus' text form under the names that upstream's dashboards know.
//! Never decides anything.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isopod_schema::{Kind, Table};
use isopod_store::ListQuery;

use crate::codec;
use crate::route::RequestInfo;
use crate::server::{ApiServer, READS_IN_FLIGHT, WRITES_IN_FLIGHT};

/// Upper ends of the duration histogram in seconds; upstream's.
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Names of built-in kinds are not copied.
type Name = Cow<'static, str>;

/// What a series is about. Only kinds that exist are counted, so their number is bounded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    verb: &'static str,
    group: Name,
    version: Name,
    resource: Name,
    subresource: Name,
    scope: &'static str,
    is_long_running: bool,
}

impl Series {
    /// None for paths that are no resources, and for resources that do not exist.
    pub(crate) fn of(server: &ApiServer, info: &RequestInfo) -> Option<Self> {
        if let Some(kind) = Table::builtin().resource(&info.group, &info.version, &info.resource) {
            return Some(Self::of_kind(kind, info, Cow::Borrowed));
        }
        let served = server.served();
        let kind = served.table.resource(&info.group, &info.version, &info.resource)?;
        Some(Self::of_kind(kind, info, |name| Cow::Owned(name.to_owned())))
    }

    fn of_kind<'k>(kind: &'k Kind, info: &RequestInfo, name: impl Fn(&'k str) -> Name) -> Self {
        let subresource = kind.subresource(&info.subresource).map_or("", |subresource| &subresource.name);
        let scope = match (info.name.is_empty(), info.namespace.is_empty() || !kind.namespaced) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        Self {
            verb: verb(info),
            group: name(&kind.group),
            version: name(&kind.version),
            resource: name(&kind.plural),
            subresource: name(subresource),
            scope,
            is_long_running: info.is_long_running(),
        }
    }

    fn labels(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope, .. } = self;
        format!(
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

fn verb(info: &RequestInfo) -> &'static str {
    match (info.verb.as_str(), info.subresource.as_str()) {
        (_, "exec" | "attach" | "portforward" | "proxy") => "CONNECT",
        ("create", _) => "POST",
        ("update", _) => "PUT",
        ("patch", _) => "PATCH",
        ("delete", _) => "DELETE",
        ("deletecollection", _) => "DELETECOLLECTION",
        ("list", _) => "LIST",
        ("watch", _) => "WATCH",
        ("get", _) => "GET",
        _ => "other",
    }
}

#[derive(Debug, Default)]
struct Durations {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Durations {
    fn add(&mut self, seconds: f64) {
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// Counters of one server.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: BTreeMap<(Series, u16), u64>,
    durations: BTreeMap<Series, Durations>,
}

impl Metrics {
    /// Counts an answer. How long it took is not kept for what lasts as long as its client wants.
    pub(crate) fn count(&self, series: Series, code: u16, taken: Duration) {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !series.is_long_running {
            counters.durations.entry(series.clone()).or_default().add(taken.as_secs_f64());
        }
        *counters.requests.entry((series, code)).or_default() += 1;
    }

    fn write(&self, text: &mut String) {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        head(text, "apiserver_request_total", "counter", "Answers by resource, verb and code.");
        for ((series, code), count) in &counters.requests {
            line(text, "apiserver_request_total", &format!("code=\"{code}\",{}", series.labels()), *count as f64);
        }
        let name = "apiserver_request_duration_seconds";
        head(text, name, "histogram", "How long answers took; watches and streams are left out.");
        for (series, durations) in &counters.durations {
            let labels = series.labels();
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(durations.counts) {
                below += count;
                line(text, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), below as f64);
            }
            line(text, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), durations.count as f64);
            line(text, &format!("{name}_sum"), &labels, durations.sum);
            line(text, &format!("{name}_count"), &labels, durations.count as f64);
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// The whole page.
pub(crate) fn page(server: &ApiServer) -> String {
    let mut text = String::new();
    server.metrics.write(&mut text);
    let name = "apiserver_current_inflight_requests";
    head(&mut text, name, "gauge", "Requests that are worked on now.");
    for (kind, gate, most) in
        [("mutating", &server.writes, WRITES_IN_FLIGHT), ("readOnly", &server.reads, READS_IN_FLIGHT)]
    {
        let now = most.saturating_sub(gate.free());
        line(&mut text, name, &format!("request_kind=\"{kind}\""), now as f64);
    }
    if let Some(dropped) = server.audit.dropped() {
        let name = "isopod_audit_dropped_total";
        head(&mut text, name, "counter", "Audit events that could not be written in time.");
        line(&mut text, name, "", dropped as f64);
    }
    store(server, &mut text);
    text
}

fn store(server: &ApiServer, text: &mut String) {
    let stats = server.store.stats();
    let sizes: [(&str, &str, usize); 5] = [
        ("apiserver_storage_size_bytes", "Bytes of stored objects and their keys.", stats.live_bytes),
        ("isopod_store_history_bytes", "Bytes of superseded versions that are still kept.", stats.history_bytes),
        ("isopod_store_events", "Events that are kept for watches that begin in the past.", stats.events),
        ("isopod_store_watchers", "Open watches.", stats.watchers),
        ("isopod_store_revision", "The newest revision.", usize::try_from(stats.revision).unwrap_or(usize::MAX)),
    ];
    for (name, help, value) in sizes {
        head(text, name, "gauge", help);
        line(text, name, "", value as f64);
    }
    let name = "apiserver_storage_objects";
    head(text, name, "gauge", "Stored objects by resource.");
    // Kinds of several versions are stored once.
    let kinds: BTreeMap<String, String> = server
        .served()
        .table
        .rows()
        .filter(|kind| kind.is_stored())
        .map(|kind| (kind.resource_text(), codec::prefix(crate::convert::stored_kind(kind), "")))
        .collect();
    for (resource, prefix) in kinds {
        let query = ListQuery { prefix, limit: 1, ..ListQuery::default() };
        let count = server.store.list(&query).map_or(0, |list| list.entries.len() + list.remaining);
        line(text, name, &format!("resource=\"{resource}\""), count as f64);
    }
}
