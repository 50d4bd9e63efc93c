//! Objects that pods of this host refer to, kept as they are by a watch each: one watch however many pods refer to an object, none
//! for an object to which no pod refers any more, none for one that says it never changes. It decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt;
use isopod_types::{Key, Object};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::parse;

/// An object as it is; the inner none: there is no such object, the outer: that is not known yet.
pub(crate) type Known<K> = Option<Option<Arc<K>>>;

/// Objects of one kind by namespace and name.
pub(crate) struct Kept<K> {
    client: Client,
    /// Whether an object says of itself that it never changes.
    is_final: fn(&K) -> bool,
    objects: Mutex<BTreeMap<Key, Weak<Watched<K>>>>,
}

/// An object that somebody refers to. Its watch ends with the last reference.
pub(crate) struct Watched<K> {
    pub(crate) known: watch::Receiver<Known<K>>,
    watch: AbortOnDropHandle<()>,
}

impl<K> Watched<K> {
    /// The object as it is now.
    pub(crate) fn now(&self) -> Known<K> {
        self.known.borrow().clone()
    }
}

impl<K: Object + Send + Sync + 'static> Kept<K> {
    pub(crate) fn new(client: Client, is_final: fn(&K) -> bool) -> Self {
        Self { client, is_final, objects: Mutex::default() }
    }

    /// The object of this name, watched from now on.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> Arc<Watched<K>> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|_, watched| watched.strong_count() > 0);
        let key = Key::new(namespace, name);
        // Another may have the name of one that never changed and is watched no more.
        if let Some(watched) = objects.get(&key).and_then(Weak::upgrade).filter(|one| !one.watch.is_finished()) {
            return watched;
        }
        let watched = Arc::new(self.watch(namespace, name));
        objects.insert(key, Arc::downgrade(&watched));
        watched
    }

    fn watch(&self, namespace: &str, name: &str) -> Watched<K> {
        let resource = ApiResource {
            group: K::GROUP.into(),
            version: K::VERSION.into(),
            api_version: "v1".into(),
            kind: K::KIND.into(),
            plural: K::PLURAL.into(),
        };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        let (name, is_final) = (name.to_owned(), self.is_final);
        let (sender, known) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut states = watcher::watch_object(api, &name).default_backoff().boxed();
            while let Some(state) = states.next().await {
                let over = match state {
                    Ok(state) => note(&sender, state, is_final),
                    Err(error) => {
                        tracing::debug!(name, %error, "the watch of an object broke; it begins anew");
                        false
                    }
                };
                if over {
                    return;
                }
            }
        });
        Watched { known, watch: AbortOnDropHandle::new(task) }
    }
}

/// Takes note of a state; true when it is the last one.
fn note<K: Object>(sender: &watch::Sender<Known<K>>, state: Option<DynamicObject>, is_final: fn(&K) -> bool) -> bool {
    let state = match state.map(parse::<K>) {
        // What cannot be read changes nothing.
        Some(None) => return false,
        Some(Some(object)) => Some(Arc::new(object)),
        None => None,
    };
    let over = state.as_deref().is_some_and(is_final);
    let revision = |state: &Option<Arc<K>>| state.as_ref().map(|object| object.meta().resource_version.clone());
    sender.send_if_modified(|known| {
        let differs = known.as_ref().is_none_or(|known| revision(known) != revision(&state));
        *known = Some(state);
        differs
    });
    over
}
