//! The cluster as the planner's functions see it: typed views by kind, with the indexes that plans need.

use std::collections::{BTreeMap, BTreeSet};

use isopod_types::autoscaling::HorizontalPodAutoscaler;
use isopod_types::batch::{CronJob, Job};
use isopod_types::daemonset::DaemonSet;
use isopod_types::disruption::PodDisruptionBudget;
use isopod_types::lease::Lease;
use isopod_types::network::{EndpointSlice, Endpoints};
use isopod_types::node::{ConfigMap, Namespace, Node, Service, ServiceAccount};
use isopod_types::own::{Cluster, FargateProfile, Host, NodeGroup};
use isopod_types::pod::Pod;
use isopod_types::rbac::ClusterRole;
use isopod_types::statefulset::{ControllerRevision, StatefulSet};
use isopod_types::storage::{PersistentVolume, PersistentVolumeClaim, StorageClass};
use isopod_types::workload::{Deployment, ReplicaSet, ReplicationController};
use isopod_types::{Key, Object, ObjectMeta};
use serde::Deserializer;
use serde_json::Value;

use crate::gone::Gone;
use crate::graph::Served;

/// The kind of which only some objects are watched whole.
pub(crate) const SELECTED: &str = "ConfigMap";

/// Objects of one kind by key.
#[derive(Debug)]
pub(crate) struct Kind<K> {
    objects: BTreeMap<Key, K>,
    /// Keys by the UID of the controlling owner; empty UID for orphans.
    by_owner: BTreeMap<String, BTreeSet<Key>>,
    gone: Gone,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), by_owner: BTreeMap::new(), gone: Gone::default() }
    }
}

fn owner_uid<K: Object>(object: &K) -> String {
    object.meta().controller().map(|owner| owner.uid.clone()).unwrap_or_default()
}

fn revision<K: Object>(object: &K) -> u64 {
    object.meta().resource_version.parse().unwrap_or(0)
}

impl<K: Object> Kind<K> {
    pub(crate) fn get(&self, key: &Key) -> Option<&K> {
        self.objects.get(key)
    }

    /// All objects by key.
    pub(crate) fn map(&self) -> &BTreeMap<Key, K> {
        &self.objects
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// Objects of one namespace.
    pub(crate) fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a K> {
        let from = Key::new(namespace, "");
        self.objects.range(from..).take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| object)
    }

    /// Objects that the owner with this UID controls.
    pub(crate) fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a K> {
        self.by_owner.get(uid).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// Objects of a namespace that nobody controls.
    pub(crate) fn orphans<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a K> {
        let from = Key::new(namespace, "");
        let keys = self.by_owner.get("").into_iter().flat_map(move |keys| keys.range(from.clone()..));
        keys.take_while(move |key| key.namespace == namespace).filter_map(|key| self.objects.get(key))
    }

    /// Puts an object in unless a newer revision is there; returns whether it was, and the one before.
    fn put(&mut self, object: K) -> Option<Change<K>> {
        let key = object.key();
        let before = self.objects.get(&key);
        // An earlier object of the same name is older, too: revisions are those of the whole store.
        if before.is_some_and(|before| revision(before) >= revision(&object)) {
            return None;
        }
        if before.is_none() && self.gone.contains(&object.meta().uid) {
            return None;
        }
        let before = self.objects.remove(&key);
        if let Some(before) = &before {
            self.unindex(&key, &owner_uid(before));
        }
        self.by_owner.entry(owner_uid(&object)).or_default().insert(key.clone());
        self.objects.insert(key, object.clone());
        Some(Change { before, after: Some(object) })
    }

    fn remove(&mut self, key: &Key) -> Option<Change<K>> {
        let before = self.objects.remove(key)?;
        self.unindex(key, &owner_uid(&before));
        Some(Change { before: Some(before), after: None })
    }

    /// As `remove`, for the one object of that name that is known to be gone for good.
    fn end(&mut self, key: &Key, uid: &str) -> Option<Change<K>> {
        self.gone.add(uid);
        let found = self.objects.get(key)?;
        (found.meta().uid == uid).then(|| self.remove(key))?
    }

    fn unindex(&mut self, key: &Key, owner: &str) {
        if let Some(keys) = self.by_owner.get_mut(owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(owner);
            }
        }
    }
}

/// How one object changed.
#[derive(Debug)]
pub(crate) struct Change<K> {
    pub(crate) before: Option<K>,
    pub(crate) after: Option<K>,
}

impl<K: Object> Change<K> {
    /// Both sides, the newer first.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &K> {
        self.after.iter().chain(&self.before)
    }

    pub(crate) fn key(&self) -> Key {
        self.sides().next().map(Object::key).unwrap_or_default()
    }
}

/// Declares the cache's kinds once: fields, names, and what one change is.
macro_rules! kinds {
    ($($field:ident: $type:ident),* $(,)?) => {
        /// Everything the controllers know.
        #[derive(Debug, Default)]
        pub(crate) struct Cache {
            $(pub(crate) $field: Kind<$type>,)*
        }

        /// One object of one kind.
        #[derive(Debug)]
        pub(crate) enum Known {
            $($type(Box<$type>),)*
        }

        impl Known {
            /// Reads an object; nothing when it is not of a kind that is watched, or cannot be read, which is logged.
            pub(crate) fn read<'de, D>(kind: &str, document: D, name: &str) -> Option<Self>
            where
                D: Deserializer<'de, Error = serde_json::Error>,
            {
                match kind {
                    $($type::KIND => parse::<$type, D>(document, name).map(Box::new).map(Self::$type),)*
                    _ => None,
                }
            }

            /// Its kind and metadata.
            pub(crate) fn named(&self) -> (&'static str, &ObjectMeta) {
                match self {
                    $(Self::$type(object) => ($type::KIND, object.meta()),)*
                }
            }
        }

        /// A change of one object of one kind.
        #[derive(Debug)]
        #[expect(clippy::large_enum_variant, reason = "short-lived, moved once")]
        pub(crate) enum Changed {
            $($type(Change<$type>),)*
        }

        impl Changed {
            /// Kind and key of what changed, for logs.
            pub(crate) fn named(&self) -> (&'static str, Key) {
                match self {
                    $(Self::$type(change) => ($type::KIND, change.key()),)*
                }
            }
        }

        /// `(group, version, kind, plural)` of every kind that is watched in full.
        pub(crate) const WATCHED: &[(&str, &str, &str, &str)] =
            &[$(($type::GROUP, $type::VERSION, $type::KIND, $type::PLURAL)),*];

        impl Cache {
            /// Puts an object in; nothing when it is not newer.
            pub(crate) fn take_in(&mut self, known: Known) -> Option<Changed> {
                match known {
                    $(Known::$type(object) => self.$field.put(*object).map(Changed::$type),)*
                }
            }

            /// Takes an object out.
            pub(crate) fn remove(&mut self, kind: &str, key: &Key) -> Option<Changed> {
                match kind {
                    $($type::KIND => self.$field.remove(key).map(Changed::$type),)*
                    _ => None,
                }
            }

            /// Takes an object out that is known to be gone for good.
            pub(crate) fn end(&mut self, kind: &str, key: &Key, uid: &str) -> Option<Changed> {
                match kind {
                    $($type::KIND => self.$field.end(key, uid).map(Changed::$type),)*
                    _ => None,
                }
            }

            /// Keys of all objects of a kind.
            pub(crate) fn keys(&self, kind: &str) -> Vec<Key> {
                match kind {
                    $($type::KIND => self.$field.keys().cloned().collect(),)*
                    _ => Vec::new(),
                }
            }
        }
    };
}

kinds! {
    pods: Pod,
    nodes: Node,
    namespaces: Namespace,
    service_accounts: ServiceAccount,
    config_maps: ConfigMap,
    deployments: Deployment,
    replica_sets: ReplicaSet,
    replication_controllers: ReplicationController,
    stateful_sets: StatefulSet,
    daemon_sets: DaemonSet,
    revisions: ControllerRevision,
    jobs: Job,
    cron_jobs: CronJob,
    budgets: PodDisruptionBudget,
    autoscalers: HorizontalPodAutoscaler,
    claims: PersistentVolumeClaim,
    volumes: PersistentVolume,
    classes: StorageClass,
    leases: Lease,
    services: Service,
    endpoints: Endpoints,
    endpoint_slices: EndpointSlice,
    cluster_roles: ClusterRole,
    profiles: FargateProfile,
    hosts: Host,
    node_groups: NodeGroup,
    clusters: Cluster,
}

/// Whether every object of a kind is watched whole, so that its metadata is known from there.
pub(crate) fn is_whole(served: &Served) -> bool {
    WATCHED.iter().any(|(group, _, kind, _)| (*group, *kind) == (served.group, served.kind) && *kind != SELECTED)
}

impl Cache {
    /// Puts a document in; nothing when it is not newer or not of a kind that is watched.
    pub(crate) fn put(&mut self, kind: &str, document: &Value) -> Option<Changed> {
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        self.take_in(Known::read(kind, document, name)?)
    }
}

fn parse<'de, K: Object, D>(document: D, name: &str) -> Option<K>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    match K::deserialize(document) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(kind = K::KIND, name, %error, "object cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, revision: &str, owner: Option<&str>) -> Value {
        let owners = owner.map(|uid| json!([{"uid": uid, "controller": true}]));
        json!({"metadata": {"name": name, "namespace": "x", "uid": name, "resourceVersion": revision, "ownerReferences": owners.unwrap_or(json!([]))}})
    }

    #[test]
    fn older_revisions_do_not_replace_newer_ones() {
        let mut cache = Cache::default();
        assert!(cache.put("Pod", &pod("a", "5", None)).is_some());
        assert!(cache.put("Pod", &pod("a", "4", None)).is_none());
        assert!(cache.put("Pod", &pod("a", "5", None)).is_none());
        assert!(cache.put("Pod", &pod("a", "6", None)).is_some());
    }

    #[test]
    fn what_is_gone_does_not_come_back_by_an_old_answer() {
        let mut cache = Cache::default();
        let key = Key::new("x", "a");
        cache.put("Pod", &pod("a", "5", None));
        assert!(cache.end("Pod", &key, "a").is_some());
        assert!(cache.put("Pod", &pod("a", "6", None)).is_none());
        let mut next = pod("a", "7", None);
        next["metadata"]["uid"] = json!("another");
        assert!(cache.put("Pod", &next).is_some());
        assert!(cache.end("Pod", &key, "a").is_none(), "the end of the one is not the end of the other");
        assert!(cache.pods.get(&key).is_some());
    }

    #[test]
    fn objects_are_found_by_owner_and_namespace() {
        let mut cache = Cache::default();
        cache.put("Pod", &pod("a", "1", Some("o")));
        cache.put("Pod", &pod("b", "2", None));
        assert_eq!(cache.pods.owned_by("o").count(), 1);
        assert_eq!(cache.pods.orphans("x").count(), 1);
        assert_eq!((cache.pods.of_namespace("x").count(), cache.pods.of_namespace("y").count()), (2, 0));
        cache.put("Pod", &pod("a", "3", None));
        assert_eq!((cache.pods.owned_by("o").count(), cache.pods.orphans("x").count()), (0, 2));
        cache.remove("Pod", &Key::new("x", "a"));
        assert_eq!(cache.pods.orphans("x").count(), 1);
    }
}
