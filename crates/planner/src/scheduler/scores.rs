//! Which of the nodes that do is best. Weights are kube-scheduler's; the same cluster always gives the same answer.

use std::cmp::Reverse;

use super::affinity::preference;
use super::filters::Cycle;
use super::index::{Index, NodeInfo, Slot};
use super::resources::{balanced, least_allocated};
use super::taints::unwelcome;

const TAINTS: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const COMPANY: i64 = 2;
/// Images smaller than this do not count.
const IMAGE_BYTES_MIN: i64 = 23 << 20;
/// Images of a container count up to this.
const IMAGE_BYTES_MAX: i64 = 1000 << 20;

/// Scales to 0..=100 by the largest.
fn scaled(raw: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = raw.iter().max().copied().unwrap_or(0);
    let scale = |value: i64| {
        let share = if max == 0 { 0 } else { value * 100 / max };
        if reverse { 100 - share } else { share }
    };
    raw.into_iter().map(scale).collect()
}

fn tagged(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// How much of the pod's images a node has, 0 to 100; an image that is everywhere counts most.
fn image_locality(index: &Index, node: &NodeInfo, images: &[String]) -> i64 {
    let nodes = i64::try_from(index.len().max(1)).unwrap_or(i64::MAX);
    let spread = |name: &String| i64::try_from(index.nodes_with_image(name)).unwrap_or(0);
    let held = images.iter().filter_map(|name| Some(node.images.get(name)? / nodes * spread(name)));
    let max = IMAGE_BYTES_MAX * i64::try_from(images.len().max(1)).unwrap_or(1);
    let sum = held.sum::<i64>().clamp(IMAGE_BYTES_MIN, max);
    100 * (sum - IMAGE_BYTES_MIN) / (max - IMAGE_BYTES_MIN)
}

fn resources(node: &NodeInfo, cycle: &Cycle<'_>) -> i64 {
    let (cpu, memory) = (node.scored.0 + cycle.info.scored.0, node.scored.1 + cycle.info.scored.1);
    let (asked, has) = (&cycle.info.requested, &node.requested);
    let even = balanced(&node.allocatable, has.cpu_milli + asked.cpu_milli, has.memory_bytes + asked.memory_bytes);
    least_allocated(&node.allocatable, cpu, memory) + even
}

/// The points of each of these nodes.
pub fn points(index: &Index, cycle: &Cycle<'_>, feasible: &[Slot]) -> Vec<i64> {
    let spec = &cycle.pod.spec;
    let taints = |slot: &Slot| index.class(*slot).map_or(0, |class| unwelcome(&class.taints, &spec.tolerations));
    let taints = feasible.iter().map(|slot| i64::try_from(taints(slot)).unwrap_or(i64::MAX));
    let affinity = feasible.iter().map(|slot| preference(spec, &index.node(*slot).meta));
    let by_rule = [
        (TAINTS, scaled(taints.collect(), true)),
        (NODE_AFFINITY, scaled(affinity.collect(), false)),
        (SPREAD, cycle.spread.scores(index, feasible)),
        (COMPANY, cycle.company.scores(index, feasible)),
    ];
    let images: Vec<String> = spec.containers.iter().map(|container| tagged(&container.image)).collect();
    let of = |(at, slot): (usize, &Slot)| {
        let node = index.node(*slot);
        let ruled: i64 = by_rule.iter().map(|(weight, scores)| weight * scores[at]).sum();
        ruled + resources(node, cycle) + image_locality(index, node, &images)
    };
    feasible.iter().enumerate().map(of).collect()
}

/// The best of these nodes; among equals the one with fewest pods, then the first by name.
pub fn best(index: &Index, cycle: &Cycle<'_>, feasible: &[Slot]) -> Option<Slot> {
    if let [only] = feasible {
        return Some(*only);
    }
    let points = points(index, cycle, feasible);
    let ranked = feasible.iter().zip(points).max_by_key(|(slot, points)| {
        let node = index.node(**slot);
        (*points, Reverse(node.pods.len()), Reverse(&node.meta.name))
    });
    ranked.map(|(slot, _)| *slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_scaled_by_the_largest() {
        assert_eq!(scaled(vec![0, 5, 10], false), [0, 50, 100]);
        assert_eq!(scaled(vec![0, 5, 10], true), [100, 50, 0]);
        assert_eq!((scaled(vec![0, 0], false), scaled(vec![0, 0], true)), (vec![0, 0], vec![100, 100]));
    }

    #[test]
    fn images_without_a_tag_mean_latest() {
        for (image, expected) in
            [("a", "a:latest"), ("r:5000/a", "r:5000/a:latest"), ("a:1", "a:1"), ("a@sha256:1", "a@sha256:1")]
        {
            assert_eq!(tagged(image), expected);
        }
    }
}
