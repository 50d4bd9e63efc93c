//! Watches: streams of changes into one channel. A watch that breaks begins anew and tells what vanished meanwhile.

use std::collections::BTreeSet;

use futures::StreamExt;
use isopod_types::{Key, ObjectMeta};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::cache::Known;
use crate::document::Document;
use crate::graph::Served;

/// Something a watch saw.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A whole object of a kind that plans read.
    Object(Known),
    /// What is known of one that cannot be read.
    Unreadable { kind: &'static str, meta: ObjectMeta },
    /// One of those is gone.
    Gone { kind: &'static str, key: Key, uid: String },
    /// Everything of that kind was seen; what is not among these keys is gone.
    Complete { kind: &'static str, keys: BTreeSet<Key> },
    /// Metadata of an object of any kind.
    Meta { served: Served, meta: ObjectMeta },
    /// That object is gone.
    MetaGone { served: Served, key: Key, uid: String },
    /// As `Complete`, for metadata.
    MetaComplete { served: Served, keys: BTreeSet<Key> },
    /// A definition of a custom kind; with the kind when it is served.
    Defined { definition: String, served: Option<Served> },
    /// Every definition was seen; those that are not among these are gone.
    DefinitionsComplete { definitions: BTreeSet<String> },
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.into() } else { format!("{group}/{version}") };
    ApiResource { group: group.into(), version: version.into(), api_version, kind: kind.into(), plural: plural.into() }
}

fn config(field_selector: Option<&str>) -> watcher::Config {
    let config = watcher::Config::default().streaming_lists();
    match field_selector {
        Some(selector) => config.fields(selector),
        None => config,
    }
}

/// Whole objects of one kind.
pub(crate) fn objects(
    tasks: &mut JoinSet<()>,
    client: &Client,
    (group, version, kind, plural): (&'static str, &'static str, &'static str, &'static str),
    selector: Option<&str>,
    to: mpsc::Sender<Seen>,
) {
    let api: Api<Document> = Api::all_with(client.clone(), &resource(group, version, kind, plural));
    let stream = watcher::watcher(api, config(selector)).default_backoff().boxed();
    tasks.spawn(async move {
        let mut translation = Translation::default();
        let mut stream = stream;
        while let Some(event) = stream.next().await {
            let seen = match event {
                Ok(event) => translation.object(kind, event),
                Err(error) => {
                    tracing::warn!(kind, %error, "watch broke; it begins anew");
                    None
                }
            };
            if let Some(seen) = seen
                && to.send(seen).await.is_err()
            {
                return;
            }
        }
    });
}

/// Definitions of custom kinds.
pub(crate) fn definitions(tasks: &mut JoinSet<()>, client: &Client, to: mpsc::Sender<Seen>) {
    let kind = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
    let api: Api<Document> = Api::all_with(client.clone(), &kind);
    let mut stream = watcher::watcher(api, config(None)).default_backoff().boxed();
    tasks.spawn(async move {
        let mut initial = BTreeSet::new();
        while let Some(event) = stream.next().await {
            let defined = |object: Document, is_there: bool| {
                let served =
                    if is_there { object.value().and_then(|found| Served::of_definition(&found)) } else { None };
                Some(Seen::Defined { definition: object.key().name, served })
            };
            let seen = match event {
                Ok(Event::Init) => None,
                Ok(Event::InitApply(object)) => {
                    initial.insert(object.key().name);
                    defined(object, true)
                }
                Ok(Event::InitDone) => Some(Seen::DefinitionsComplete { definitions: std::mem::take(&mut initial) }),
                Ok(Event::Apply(object)) => defined(object, true),
                Ok(Event::Delete(object)) => defined(object, false),
                Err(error) => {
                    tracing::warn!(%error, "watch of custom kinds broke; it begins anew");
                    None
                }
            };
            if let Some(seen) = seen
                && to.send(seen).await.is_err()
            {
                return;
            }
        }
    });
}

/// Metadata of all objects of one kind. The handle ends the watch.
pub(crate) fn metadata(
    tasks: &mut JoinSet<()>,
    client: &Client,
    served: Served,
    to: mpsc::Sender<Seen>,
) -> AbortHandle {
    let Served { group, version, kind, plural, .. } = served;
    let api: Api<PartialObjectMeta<DynamicObject>> =
        Api::all_with(client.clone(), &resource(group, version, kind, plural));
    let mut stream = watcher::watcher(api, config(None)).default_backoff().boxed();
    tasks.spawn(async move {
        let mut translation = Translation::default();
        while let Some(event) = stream.next().await {
            let seen = match event {
                Ok(event) => translation.meta(served, event),
                Err(error) => {
                    tracing::warn!(kind, %error, "metadata watch broke; it begins anew");
                    None
                }
            };
            if let Some(seen) = seen
                && to.send(seen).await.is_err()
            {
                return;
            }
        }
    })
}

/// Remembers which keys the initial list held.
#[derive(Default)]
struct Translation {
    initial: BTreeSet<Key>,
}

fn key(namespace: Option<&String>, name: Option<&String>) -> Key {
    Key::new(namespace.cloned().unwrap_or_default(), name.cloned().unwrap_or_default())
}

impl Translation {
    fn object(&mut self, kind: &'static str, event: Event<Document>) -> Option<Seen> {
        match event {
            Event::Init => {
                self.initial.clear();
                None
            }
            Event::InitApply(object) => {
                self.initial.insert(object.key());
                object.seen(kind)
            }
            Event::InitDone => Some(Seen::Complete { kind, keys: std::mem::take(&mut self.initial) }),
            Event::Apply(object) => object.seen(kind),
            Event::Delete(object) => Some(Seen::Gone { kind, key: object.key(), uid: object.uid().to_owned() }),
        }
    }

    fn meta(&mut self, served: Served, event: Event<PartialObjectMeta<DynamicObject>>) -> Option<Seen> {
        let key_of = |object: &PartialObjectMeta<DynamicObject>| {
            key(object.metadata.namespace.as_ref(), object.metadata.name.as_ref())
        };
        match event {
            Event::Init => {
                self.initial.clear();
                None
            }
            Event::InitApply(object) => {
                self.initial.insert(key_of(&object));
                Some(Seen::Meta { served, meta: meta(object)? })
            }
            Event::InitDone => Some(Seen::MetaComplete { served, keys: std::mem::take(&mut self.initial) }),
            Event::Apply(object) => Some(Seen::Meta { served, meta: meta(object)? }),
            Event::Delete(object) => {
                Some(Seen::MetaGone { served, key: key_of(&object), uid: object.metadata.uid.unwrap_or_default() })
            }
        }
    }
}

fn meta(object: PartialObjectMeta<DynamicObject>) -> Option<ObjectMeta> {
    serde_json::to_value(object.metadata).ok().and_then(|value| serde_json::from_value(value).ok())
}
