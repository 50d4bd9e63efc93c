//! The controllers one step at a time, for simulations: who runs them says what a watch saw and when, when a decision is
//! made, when its writes are carried out, when their outcome is taken in, and what time it is. The decisions and the writes
//! are those of [`crate::run`]. Watches nothing by itself.

use std::collections::BTreeSet;

use isopod_types::{Key, ObjectMeta};
use jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

use crate::cache::{Known, WATCHED, is_whole};
use crate::core::{self, Core};
use crate::driver::discover;
use crate::execute::{Clock, Executor, Outcome};
use crate::graph::Served;
use crate::queue::Work;
use crate::watches::Seen;

/// The kinds whose objects can be owned and collected, as the API told them.
#[derive(Clone, Debug)]
pub struct Kinds(Vec<Served>);

impl Kinds {
    /// Asks the API.
    ///
    /// # Errors
    /// When the API's kinds cannot be discovered.
    pub async fn discover(client: &Client) -> anyhow::Result<Self> {
        let mut kinds = discover(client).await?;
        // Discovery knows no order; a simulation must.
        kinds.sort_by_key(|kind| (kind.group, kind.plural));
        Ok(Self(kinds))
    }

    /// Every watch that the controllers need: whole objects of the kinds that plans read, metadata of all others.
    pub fn watches(&self) -> Vec<Watch> {
        let whole = WATCHED.iter().map(|(group, version, kind, plural)| Watch {
            served: Served { group, version, kind, plural, namespaced: true },
            is_whole: true,
        });
        whole
            .chain(
                self.0
                    .iter()
                    .filter(|served| !is_whole(served))
                    .map(|served| Watch { served: *served, is_whole: false }),
            )
            .collect()
    }
}

/// One watch.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    served: Served,
    is_whole: bool,
}

impl Watch {
    /// The path of the collection that it watches.
    pub fn path(&self) -> String {
        let Served { group, version, plural, .. } = self.served;
        if group.is_empty() { format!("/api/{version}/{plural}") } else { format!("/apis/{group}/{version}/{plural}") }
    }

    fn there(&self, object: &Value) -> Option<Seen> {
        Some(match self.is_whole {
            true => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                Seen::Object(Known::read(self.served.kind, object, name)?)
            }
            false => Seen::Meta { served: self.served, meta: meta(object)? },
        })
    }

    fn gone(&self, object: &Value) -> Option<Seen> {
        let ObjectMeta { namespace, name, uid, .. } = meta(object)?;
        let (key, served) = (Key::new(namespace, name), self.served);
        Some(match self.is_whole {
            true => Seen::Gone { kind: served.kind, key, uid },
            false => Seen::MetaGone { served, key, uid },
        })
    }

    fn complete(&self, keys: BTreeSet<Key>) -> Seen {
        match self.is_whole {
            true => Seen::Complete { kind: self.served.kind, keys },
            false => Seen::MetaComplete { served: self.served, keys },
        }
    }
}

fn meta(object: &Value) -> Option<ObjectMeta> {
    ObjectMeta::deserialize(&object["metadata"]).ok()
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is as this.
    There(Value),
    /// An object that was last as this is gone.
    Gone(Value),
    /// The watch began anew: everything is as this.
    Whole(Vec<Value>),
}

/// A decision whose writes have not been carried out.
#[derive(Debug)]
pub struct Begun(core::Begun);

/// Writes that were carried out and whose outcome the controllers do not know yet.
#[derive(Debug)]
pub struct Done(Work, Outcome);

impl Done {
    /// Which loop decided, about what.
    pub fn work(&self) -> String {
        format!("{} {}", self.0.name, self.0.key)
    }
}

impl Begun {
    /// Which loop decided, about what.
    pub fn work(&self) -> String {
        format!("{} {}", self.0.work.name, self.0.work.key)
    }
}

/// All controllers of one process, which know what they were told.
pub struct Stepped {
    core: Core,
    executor: Executor,
}

impl Stepped {
    /// Controllers that have just been started: nothing is decided until each watch was told [`Change::Whole`].
    pub fn new(client: Client, ca_pem: String, kinds: &Kinds, clock: Clock) -> Self {
        let mut core = Core::new(ca_pem, None);
        kinds.0.iter().for_each(|kind| core.serve(*kind));
        Self { core, executor: Executor::new(client, clock) }
    }

    /// Takes in what a watch tells.
    pub fn tell(&mut self, watch: &Watch, change: &Change, now: Timestamp) {
        let seen: Vec<Seen> = match change {
            Change::There(object) => watch.there(object).into_iter().collect(),
            Change::Gone(object) => watch.gone(object).into_iter().collect(),
            Change::Whole(objects) => {
                let keys = objects.iter().filter_map(|object| meta(object).map(|meta| meta.key())).collect();
                objects.iter().filter_map(|object| watch.there(object)).chain([watch.complete(keys)]).collect()
            }
        };
        seen.into_iter().for_each(|seen| self.core.take_in(seen, now));
    }

    /// Decides about what is due until something is to be written.
    pub fn begin(&mut self, now: Timestamp) -> Option<Begun> {
        self.core.queue.advance(now);
        self.core.begin(now).map(Begun)
    }

    /// Carries out the writes of a decision.
    pub async fn write(&self, begun: Begun) -> Done {
        let (work, outcome) = begun.0.run(&self.executor).await;
        Done(work, outcome)
    }

    /// Takes in how the writes of a decision went.
    pub fn finish(&mut self, done: Done, now: Timestamp) {
        self.core.finish(&done.0, done.1, now);
    }

    /// When something is due next.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.core.queue.next_at()
    }
}
