//! Replacing daemons of an old template, a few nodes at a time.

use isopod_types::daemonset::DaemonSet;
use isopod_types::pod::Pod;

use super::nodes::Fit;
use super::{Place, View};
use crate::plan::Plan;

/// How far an update may go at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Nodes that may be without an available pod.
    unavailable: i64,
    /// Nodes that may have two.
    pub(super) surge: i64,
}

impl Bounds {
    /// The bounds of a set that `wanted` nodes take.
    pub(super) fn of(set: &DaemonSet, wanted: usize) -> Self {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let strategy = &set.spec.update_strategy;
        if strategy.type_ == "OnDelete" {
            return Self { unavailable: 0, surge: 0 };
        }
        let unavailable = strategy.rolling_update.max_unavailable.as_ref().map_or(1, |most| most.of(wanted, true));
        let surge = strategy.rolling_update.max_surge.as_ref().map_or(0, |most| most.of(wanted, true));
        // Both zero would never move.
        Self { unavailable: if surge == 0 { unavailable.max(1) } else { unavailable }, surge }
    }
}

/// The pod of the newest template and one of an older, of those that are not on their way out.
fn pods_at<'a>(view: &View<'a>, place: &Place<'a>) -> (Option<&'a Pod>, Option<&'a Pod>) {
    let staying = || place.pods.iter().copied().filter(|pod| !pod.metadata.is_deleting());
    (staying().find(|pod| view.is_new(pod)), staying().find(|pod| !view.is_new(pod)))
}

/// Replaces old pods as far as enough nodes keep an available one.
pub(super) fn roll(view: &View<'_>, plan: &mut Plan) {
    let Bounds { unavailable, surge } = view.bounds;
    if surge > 0 { add_new(view, surge, plan) } else { remove_old(view, unavailable, plan) }
}

fn remove_old(view: &View<'_>, most: i64, plan: &mut Plan) {
    let (mut missing, mut broken, mut working) = (0, Vec::new(), Vec::new());
    for place in view.places.iter().filter(|place| place.fit != Fit::No) {
        match pods_at(view, place) {
            (Some(new), _) => missing += i64::from(!view.is_available(new)),
            (None, Some(old)) if view.is_available(old) => working.push(old),
            (None, Some(old)) => {
                missing += 1;
                broken.push(old);
            }
            (None, None) => missing += i64::from(place.fit == Fit::Yes),
        }
    }
    let room = usize::try_from(most - missing).unwrap_or(0);
    broken.into_iter().chain(working.into_iter().take(room)).for_each(|pod| view.delete(pod, plan));
}

fn add_new(view: &View<'_>, most: i64, plan: &mut Plan) {
    let (mut doubled, mut broken, mut working) = (0, Vec::new(), Vec::new());
    for place in view.places.iter().filter(|place| place.fit == Fit::Yes) {
        match pods_at(view, place) {
            (Some(_), Some(_)) => doubled += 1,
            (None, Some(old)) if view.is_available(old) => working.push(place.node),
            (None, Some(_)) => broken.push(place.node),
            _ => {}
        }
    }
    let room = usize::try_from(most - doubled).unwrap_or(0);
    broken.into_iter().chain(working.into_iter().take(room)).for_each(|node| view.create(node, plan));
}
