//! What a decision returns: writes to the Kubernetes API, and the reasons.

use isopod_types::{Key, Object, ObjectMeta};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The writes a decision wants, in order, and when to decide again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes, in order.
    pub writes: Vec<Write>,
    /// When the passing of time alone calls for another decision.
    pub again_at: Option<Timestamp>,
}

/// Which object a write is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// API group, empty for core.
    pub group: &'static str,
    /// API version without the group.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural as in URLs.
    pub plural: &'static str,
    /// Namespace and name.
    pub key: Key,
    /// UID, when the decision was about this incarnation only.
    pub uid: String,
    /// Revision the decision was based on, when a later one should make the write fail.
    pub resource_version: String,
}

impl Target {
    /// The object with this metadata, at the revision that was seen.
    pub fn of<K: Object>(meta: &ObjectMeta) -> Self {
        let mut target = Self::named::<K>(meta.key());
        target.uid.clone_from(&meta.uid);
        target.resource_version.clone_from(&meta.resource_version);
        target
    }

    /// An object by name.
    pub fn named<K: Object>(key: Key) -> Self {
        Self {
            group: K::GROUP,
            version: K::VERSION,
            kind: K::KIND,
            plural: K::PLURAL,
            key,
            uid: String::new(),
            resource_version: String::new(),
        }
    }

    /// `group/version`, or `version` for core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The object reference that events carry.
    pub fn reference(&self) -> Value {
        let mut reference = json!({"apiVersion": self.api_version(), "kind": self.kind, "name": self.key.name});
        for (field, value) in [("namespace", &self.key.namespace), ("uid", &self.uid)] {
            if !value.is_empty() {
                reference[field] = json!(value);
            }
        }
        reference
    }
}

/// Whether an event reports something ordinary or a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// Ordinary.
    Normal,
    /// A trouble.
    Warning,
}

/// An event's reason and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Ordinary or trouble.
    pub type_: EventType,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Reason {
    /// An ordinary event.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_: EventType::Normal, reason, message: message.into() }
    }

    /// A trouble.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_: EventType::Warning, reason, message: message.into() }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create an object; one that exists already is fine when `tolerate_existing`.
    Create {
        /// Kind and, unless it is generated, name.
        target: Target,
        /// The object.
        object: Value,
        /// Whether an object of that name is as good.
        tolerate_existing: bool,
    },
    /// Merge-patch an object or a subresource; the target's revision is the precondition.
    Patch {
        /// The object.
        target: Target,
        /// `""` or `status`.
        subresource: &'static str,
        /// RFC 7386 patch.
        patch: Value,
    },
    /// Delete an object; the target's UID is the precondition.
    Delete {
        /// The object.
        target: Target,
        /// `Background`, `Foreground`, or none for the kind's default.
        propagation: Option<&'static str>,
        /// Seconds of grace, or none for the object's own.
        grace_period_seconds: Option<i64>,
    },
    /// Evict a pod: delete it if its disruption budgets allow.
    Evict {
        /// The pod.
        target: Target,
    },
    /// Bind a pod to a node.
    Bind {
        /// The pod.
        target: Target,
        /// The node.
        node: String,
        /// Annotations the pod gets with it.
        annotations: Vec<(String, String)>,
    },
    /// Remove `kubernetes` from a namespace's own finalizers.
    FinalizeNamespace {
        /// The namespace.
        target: Target,
    },
    /// Ask what is at a path of the API. The answer is known before the next decision about the same key, which follows at once.
    Read {
        /// Path and query.
        path: String,
    },
    /// Tell the user.
    Event {
        /// What it is about.
        target: Target,
        /// Who says it.
        component: &'static str,
        /// What it says.
        reason: Reason,
    },
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds a write.
    pub fn push(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Adds an event about an object.
    pub fn event(&mut self, target: &Target, component: &'static str, reason: Reason) {
        self.push(Write::Event { target: target.clone(), component, reason });
    }

    /// Asks to be called again at the latest at this time.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }
}
