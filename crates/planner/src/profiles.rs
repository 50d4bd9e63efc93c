//! Which Fargate profile a pod belongs to, and why it belongs to none.
//!
//! The rule is the seeds' (most specific selector first: more labels, fewer wildcards, longer namespace, then profile name);
//! `fargate.profilePrecedence: name` switches to Amazon's (first profile name).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use isopod_types::names::FARGATE_PROFILE_LABEL;
use isopod_types::own::{FargateProfile, ProfileSelector};

/// Labels of a pod.
pub type Labels = BTreeMap<String, String>;

/// Which of several matching profiles wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// The most specific selector.
    Specificity,
    /// The first profile name.
    Name,
}

impl Precedence {
    /// From the cluster setting; anything but `name` is the default.
    pub fn from_setting(setting: &str) -> Self {
        if setting == "name" { Self::Name } else { Self::Specificity }
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any characters and `?` for exactly one.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            (p, t) = (star_p + 1, star_t + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The label requirement of a selector that the pod does not meet, if any.
fn unmet<'a>(selector: &'a ProfileSelector, labels: &Labels) -> Option<(&'a String, &'a String)> {
    selector.labels.iter().find(|(key, value)| !labels.iter().any(|(k, v)| glob(key, k) && glob(value, v)))
}

fn matches(selector: &ProfileSelector, namespace: &str, labels: &Labels) -> bool {
    glob(&selector.namespace, namespace) && unmet(selector, labels).is_none()
}

fn wildcards(selector: &ProfileSelector) -> usize {
    let texts = selector.labels.iter().flat_map(|(key, value)| [key, value]).chain([&selector.namespace]);
    texts.map(|text| text.matches(['*', '?']).count()).sum()
}

/// Order by which the most specific selector comes first.
fn specificity(selector: &ProfileSelector) -> (Reverse<usize>, usize, Reverse<usize>) {
    (Reverse(selector.labels.len()), wildcards(selector), Reverse(selector.namespace.len()))
}

/// The profile that a pod with these labels in this namespace belongs to.
///
/// A pod label `eks.amazonaws.com/fargate-profile` names the profile; then only that one can match.
pub fn best_match<'a>(
    profiles: &'a [FargateProfile],
    namespace: &str,
    labels: &Labels,
    precedence: Precedence,
) -> Option<&'a FargateProfile> {
    let wanted = labels.get(FARGATE_PROFILE_LABEL);
    let candidates = profiles.iter().filter(|profile| wanted.is_none_or(|name| *name == profile.metadata.name));
    let selectors =
        candidates.flat_map(|profile| profile.spec.selectors.iter().map(move |selector| (profile, selector)));
    let matching = selectors.filter(|(_, selector)| matches(selector, namespace, labels));
    let best = match precedence {
        Precedence::Specificity => matching.min_by_key(|(profile, s)| (specificity(s), &profile.metadata.name)),
        Precedence::Name => matching.min_by_key(|(profile, _)| &profile.metadata.name),
    };
    best.map(|(profile, _)| profile)
}

/// Why no profile matches: the nearest one and what it misses, as a sentence for the pod's event.
pub fn explain_no_match(profiles: &[FargateProfile], namespace: &str, labels: &Labels) -> String {
    let selectors = profiles.iter().flat_map(|profile| profile.spec.selectors.iter().map(move |s| (profile, s)));
    let nearest = selectors.min_by_key(|(profile, selector)| {
        let missing = selector.labels.len() - met(selector, labels);
        (!glob(&selector.namespace, namespace), missing, &profile.metadata.name)
    });
    let Some((profile, selector)) = nearest else {
        return "no Fargate profile found: the cluster has none".into();
    };
    let name = &profile.metadata.name;
    if let Some(wanted) = labels.get(FARGATE_PROFILE_LABEL).filter(|wanted| *wanted != name) {
        return format!(
            "no Fargate profile found: the pod asks for profile {wanted:?}, which does not exist or does not match"
        );
    }
    if !glob(&selector.namespace, namespace) {
        let wants = &selector.namespace;
        return format!(
            "no Fargate profile found: the nearest is {name:?}, which wants namespace {wants:?}, not {namespace:?}"
        );
    }
    match unmet(selector, labels) {
        Some((key, value)) => {
            format!("no Fargate profile found: the nearest is {name:?}, which wants label {key}={value}")
        }
        None => format!("profile {name:?} matches now; delete the pod so that its next copy is placed on Fargate"),
    }
}

fn met(selector: &ProfileSelector, labels: &Labels) -> usize {
    selector.labels.iter().filter(|(key, value)| labels.iter().any(|(k, v)| glob(key, k) && glob(value, v))).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopod_types::ObjectMeta;

    fn labels(text: &str) -> Labels {
        text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    /// `name: namespace[,label=value] | namespace...` per profile.
    fn profile(text: &str) -> FargateProfile {
        let (name, selectors) = text.split_once(": ").unwrap();
        let mut profile =
            FargateProfile { metadata: ObjectMeta { name: name.into(), ..Default::default() }, ..Default::default() };
        profile.spec.selectors = selectors
            .split(" | ")
            .map(|s| ProfileSelector { namespace: s.split(',').next().unwrap().into(), labels: labels(s) })
            .collect();
        profile
    }

    fn check(profiles: &[&str], namespace: &str, pod: &str, expected: Option<&str>) {
        let profiles: Vec<_> = profiles.iter().map(|text| profile(text)).collect();
        let found = best_match(&profiles, namespace, &labels(pod), Precedence::Specificity);
        assert_eq!(found.map(|p| p.metadata.name.as_str()), expected, "{namespace} {pod}");
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("prod*", "production", true),
            ("*-x-*", "a-x-x-b", true),
            ("?", "", false),
            ("team-?", "team-ab", false),
            ("a", "b", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_most_specific_selector_wins() {
        let all =
            ["a-wild: prod*", "b-plain: production", "c-label: production,tier=backend", "d-jobs: jobs | default"];
        check(&all, "production", "", Some("b-plain"));
        check(&all, "production", "tier=backend", Some("c-label"));
        check(&all, "production", "tier=frontend", Some("b-plain"));
        check(&all, "prod-eu", "", Some("a-wild"));
        check(&all, "default", "", Some("d-jobs"));
        check(&all, "other", "tier=backend", None);
        check(&["b: x", "a: x"], "x", "", Some("a"));
        check(&["a: x", "b: x,k=*"], "x", "k=v", Some("b"));
    }

    #[test]
    fn a_pod_may_name_its_profile_but_must_match_it() {
        let all = ["a: x", "b: x", "c: y"];
        check(&all, "x", "eks.amazonaws.com/fargate-profile=b", Some("b"));
        check(&all, "x", "eks.amazonaws.com/fargate-profile=c", None);
    }

    #[test]
    fn amazons_precedence_is_by_name() {
        let profiles = [profile("b: x,k=v"), profile("a: x")];
        let found = best_match(&profiles, "x", &labels("k=v"), Precedence::Name);
        assert_eq!(found.map(|p| p.metadata.name.as_str()), Some("a"));
    }

    #[test]
    fn the_explanation_names_the_nearest_profile() {
        let profiles = [profile("fp-demo: tb-demo,app=service"), profile("fp-default: default")];
        for (namespace, pod, expected) in [
            ("tb-demo", "app=database", "label app=service"),
            ("elsewhere", "", "namespace \"default\", not \"elsewhere\""),
            ("default", "eks.amazonaws.com/fargate-profile=gone", "asks for profile \"gone\""),
        ] {
            let text = explain_no_match(&profiles, namespace, &labels(pod));
            assert!(text.contains(expected), "{text}");
        }
        assert!(explain_no_match(&[], "x", &labels("")).contains("the cluster has none"));
    }
}
