//! Why nodes do not do, counted, and the sentence that says so. Decides nothing.
//!
//! Source of the words: the plugins of kube-scheduler, and its `FitError`.

use std::collections::BTreeMap;
use std::fmt;

/// Why a node does not do for a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// New pods are kept away.
    Unschedulable,
    /// A taint that nothing tolerates.
    Taint,
    /// Labels or name are not what the pod wants.
    Affinity,
    /// Its ports are taken.
    Ports,
    /// It has as many pods as it may have.
    TooManyPods,
    /// Too little of a resource is left.
    Insufficient(String),
    /// It has too little of a resource even when empty.
    TooSmall(String),
    /// Another pod has the claim for itself alone.
    ClaimInUse,
    /// No volume that would do is reachable.
    NoVolume,
    /// A volume of the pod is not reachable.
    VolumeAffinity,
    /// A claim is bound to a volume that does not exist.
    VolumeGone,
    /// It has no place in a topology over which the pod is spread.
    SpreadLabel,
    /// Too many of the pod's like are there.
    Spread,
    /// The pods it must be near are not there.
    PodAffinity,
    /// Pods it must be away from are there.
    PodAntiAffinity,
    /// Pods that do not want it near are there.
    ExistingAntiAffinity,
}

impl Why {
    /// Whether driving other pods away might help.
    pub fn is_resolvable(&self) -> bool {
        matches!(
            self,
            Self::Ports
                | Self::TooManyPods
                | Self::Insufficient(_)
                | Self::ClaimInUse
                | Self::Spread
                | Self::PodAntiAffinity
                | Self::ExistingAntiAffinity
        )
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) | Self::TooSmall(resource) => return write!(f, "Insufficient {resource}"),
            Self::ClaimInUse => {
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
            }
            Self::NoVolume => "node(s) didn't find available persistent volumes to bind",
            Self::VolumeAffinity => "node(s) didn't match PersistentVolume's node affinity",
            Self::VolumeGone => "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            Self::SpreadLabel => "node(s) didn't match pod topology spread constraints (missing required label)",
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::PodAffinity => "node(s) didn't match pod affinity rules",
            Self::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules",
        };
        f.write_str(text)
    }
}

/// Reasons with the number of nodes each speaks for, sorted as text.
pub fn histogram<T: fmt::Display>(counts: &BTreeMap<T, usize>) -> String {
    let mut by_text: BTreeMap<String, usize> = BTreeMap::new();
    for (why, count) in counts {
        *by_text.entry(why.to_string()).or_default() += count;
    }
    let mut texts: Vec<String> = by_text.into_iter().map(|(text, count)| format!("{count} {text}")).collect();
    texts.sort();
    texts.join(", ")
}

/// `0/3 nodes are available: ...`; the cause ends with a full stop.
pub fn none_of(nodes: usize, cause: &str) -> String {
    format!("0/{nodes} nodes are available: {cause}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_in_upstreams_words() {
        let counts = BTreeMap::from([
            (Why::Taint, 2),
            (Why::Insufficient("cpu".into()), 1),
            (Why::TooSmall("cpu".into()), 1),
            (Why::Affinity, 10),
        ]);
        let expected = "0/14 nodes are available: 10 node(s) didn't match Pod's node affinity/selector, 2 Insufficient cpu, 2 node(s) had untolerated taint(s).";
        assert_eq!(none_of(14, &histogram(&counts)), expected);
    }
}
