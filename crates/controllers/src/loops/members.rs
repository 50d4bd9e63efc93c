//! Who may own an object: the owner that controls it, or all that would adopt it.

use isopod_types::statefulset::ControllerRevision;
use isopod_types::workload::LabelSelector;
use isopod_types::{Key, Object, ObjectMeta};

use crate::cache::{Cache, Kind};

/// Keys of the owners of kind `O` whose plans depend on an object that may belong to them.
pub(super) fn owners<O: Object, D: Object>(
    all: &Kind<O>,
    object: &D,
    selector: impl Fn(&O) -> &LabelSelector,
) -> Vec<Key> {
    let meta = object.meta();
    let Some(owner) = meta.controller() else {
        let all = all.of_namespace(&meta.namespace);
        return all.filter(|owner| selector(owner).matches(&meta.labels)).map(Object::key).collect();
    };
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let ours = owner.kind == O::KIND && group == O::GROUP;
    ours.then(|| Key::new(&*meta.namespace, &*owner.name)).into_iter().collect()
}

/// Objects that an owner controls or may adopt.
pub(super) fn candidates<'a, D: Object>(all: &'a Kind<D>, owner: &'a ObjectMeta) -> Vec<&'a D> {
    all.owned_by(&owner.uid).chain(all.orphans(&owner.namespace)).collect()
}

/// Revisions that an owner controls or may adopt, and a stranger's that has the name of its next one.
pub(super) fn revisions<'a>(cache: &'a Cache, owner: &'a ObjectMeta, next: String) -> Vec<&'a ControllerRevision> {
    let mut found = candidates(&cache.revisions, owner);
    let named = cache.revisions.get(&Key::new(&*owner.namespace, next));
    let is_strange = |revision: &&ControllerRevision| {
        revision.metadata.controller().is_some_and(|controller| controller.uid != owner.uid)
    };
    found.extend(named.filter(is_strange));
    found
}
