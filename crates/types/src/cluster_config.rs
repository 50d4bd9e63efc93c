//! `ClusterConfig` (`eksctl.io/v1alpha5`), the file that `isopod create cluster -f` reads.
//!
//! Source: eksctl's schema. Fields that Isopod does not act on yet are named here and refused when set, never
//! ignored; fields outside the schema are refused by name with the nearest known one.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::instances;
use crate::node::Taint;
use crate::own::{BillingSettings, FargateProfileSpec, FargateSettings, NodeGroupSpec, ProfileSelector};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterConfig {
    /// `eksctl.io/v1alpha5`.
    pub api_version: String,
    /// `ClusterConfig`.
    pub kind: String,
    /// Name, region, version.
    pub metadata: ClusterMeta,
    /// Fargate profiles.
    #[serde(default)]
    pub fargate_profiles: Vec<ProfileConfig>,
    /// Worker nodes; EKS manages these and not those of `nodeGroups`, Isopod manages both.
    #[serde(default)]
    pub managed_node_groups: Vec<NodeGroupConfig>,
    /// Worker nodes.
    #[serde(default)]
    pub node_groups: Vec<NodeGroupConfig>,
    /// Identity settings.
    #[serde(default)]
    pub iam: Iam,
    /// Network settings.
    #[serde(default)]
    pub vpc: VpcConfig,
    /// Isopod's switches (an extension of the schema).
    #[serde(default)]
    pub fargate: FargateSettings,
    /// Isopod's billing switches (an extension of the schema).
    #[serde(default)]
    pub billing: BillingSettings,
}

/// `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterMeta {
    /// Name of the cluster.
    pub name: String,
    /// Region, part of node names.
    pub region: String,
    /// Kubernetes version.
    pub version: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// One entry of `fargateProfiles`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProfileConfig {
    /// Name of the profile.
    pub name: String,
    /// Which pods.
    pub selectors: Vec<ProfileSelector>,
    /// Role under which images are pulled.
    #[serde(rename = "podExecutionRoleARN")]
    pub pod_execution_role_arn: String,
    /// Subnets for the pods' addresses.
    pub subnets: Vec<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// `FARGATE_SPOT` for interruptible capacity (an extension of the schema).
    pub capacity_type: Option<String>,
}

/// One entry of `managedNodeGroups` or `nodeGroups`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeGroupConfig {
    /// Name of the group.
    pub name: String,
    /// Size of the nodes; `m5.large` when absent, as eksctl has it.
    pub instance_type: Option<String>,
    /// Nodes to begin with; absent: the least, or two.
    pub desired_capacity: Option<i64>,
    /// Nodes there are at least; absent: as many as to begin with.
    pub min_size: Option<i64>,
    /// Nodes there are at most; absent: as many as to begin with.
    pub max_size: Option<i64>,
    /// Disk of a node in GiB; absent: 80.
    pub volume_size: Option<i64>,
    /// Labels of the nodes.
    pub labels: BTreeMap<String, String>,
    /// Taints of the nodes.
    pub taints: Vec<Taint>,
    /// Whether nodes have private addresses only; they always have.
    pub private_networking: Option<bool>,
}

impl From<&NodeGroupConfig> for NodeGroupSpec {
    fn from(config: &NodeGroupConfig) -> Self {
        let desired = config.desired_capacity.or(config.min_size).or(config.max_size).unwrap_or(DEFAULT_NODES);
        Self {
            instance_type: config.instance_type.clone().unwrap_or_else(|| DEFAULT_INSTANCE.into()),
            min_size: config.min_size.unwrap_or(desired),
            max_size: config.max_size.unwrap_or(desired),
            desired_size: desired,
            volume_size_gib: config.volume_size.unwrap_or(DEFAULT_VOLUME_GIB),
            labels: config.labels.clone(),
            taints: config.taints.clone(),
        }
    }
}

/// eksctl's defaults of a node group.
const DEFAULT_NODES: i64 = 2;
const DEFAULT_INSTANCE: &str = "m5.large";
const DEFAULT_VOLUME_GIB: i64 = 80;

/// `iam`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Iam {
    /// Whether the cluster is an OIDC provider; Isopod's always issues tokens that can serve as one.
    #[serde(rename = "withOIDC")]
    pub with_oidc: bool,
}

/// `vpc`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VpcConfig {
    /// All addresses of the cluster.
    pub cidr: Option<Ipv4Net>,
    /// How pods reach the outside; both modes are one NAT on the host.
    pub nat: Nat,
}

/// `vpc.nat`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nat {
    /// `HighlyAvailable` or `Single`; there is no cluster without NAT yet.
    pub gateway: Option<String>,
}

/// A rule of the file that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

fn problem(field: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError { field: field.into(), problem: problem.into() }
}

impl ClusterConfig {
    /// The configuration that `--fargate` stands for: profile `fp-default` over `default` and `kube-system`.
    pub fn fargate_default(name: &str, region: &str) -> Self {
        let selectors = ["default", "kube-system"]
            .map(|namespace| ProfileSelector { namespace: namespace.into(), labels: BTreeMap::new() });
        Self {
            api_version: "eksctl.io/v1alpha5".into(),
            kind: "ClusterConfig".into(),
            metadata: ClusterMeta { name: name.into(), region: region.into(), ..ClusterMeta::default() },
            fargate_profiles: vec![ProfileConfig {
                name: "fp-default".into(),
                selectors: selectors.into(),
                ..ProfileConfig::default()
            }],
            managed_node_groups: Vec::new(),
            node_groups: Vec::new(),
            iam: Iam::default(),
            vpc: VpcConfig::default(),
            fargate: FargateSettings::default(),
            billing: BillingSettings::default(),
        }
    }

    /// Every rule that the file breaks; empty when it is good.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        if self.api_version != "eksctl.io/v1alpha5" {
            problems.push(problem(
                "apiVersion",
                format!("{:?} is not supported; write eksctl.io/v1alpha5", self.api_version),
            ));
        }
        if self.kind != "ClusterConfig" {
            problems.push(problem("kind", format!("{:?} is not supported; write ClusterConfig", self.kind)));
        }
        problems.extend(check_name("metadata.name", &self.metadata.name));
        problems.extend(
            self.metadata.region.is_empty().then(|| problem("metadata.region", "is required, for example us-east-1")),
        );
        problems.extend(self.metadata.version.as_deref().and_then(check_version));
        problems.extend(check_profiles(&self.fargate_profiles));
        problems.extend(self.check_node_groups());
        problems.extend(self.vpc.cidr.and_then(check_cidr));
        problems.extend(check_choice(
            "vpc.nat.gateway",
            self.vpc.nat.gateway.as_deref(),
            &["HighlyAvailable", "Single"],
        ));
        problems.extend(check_choice(
            "fargate.profilePrecedence",
            Some(&self.fargate.profile_precedence),
            &["specificity", "name"],
        ));
        problems.extend(check_choice("billing.until", Some(&self.billing.until), &["containersEnded"]));
        problems
    }
}

impl ClusterConfig {
    /// All node groups, with the paths of their fields.
    fn named_node_groups(&self) -> impl Iterator<Item = (String, &NodeGroupConfig)> {
        let managed =
            self.managed_node_groups.iter().enumerate().map(|(at, group)| (format!("managedNodeGroups[{at}]"), group));
        managed.chain(self.node_groups.iter().enumerate().map(|(at, group)| (format!("nodeGroups[{at}]"), group)))
    }

    /// All node groups.
    pub fn all_node_groups(&self) -> impl Iterator<Item = &NodeGroupConfig> {
        self.named_node_groups().map(|(_, group)| group)
    }

    fn check_node_groups(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        for (path, group) in self.named_node_groups() {
            problems.extend(check_object_name(&format!("{path}.name"), &group.name));
            if !names.insert(&group.name) {
                problems
                    .push(problem(format!("{path}.name"), format!("{:?} is the name of another group", group.name)));
            }
            let spec = NodeGroupSpec::from(group);
            if instances::find(&spec.instance_type).is_none() {
                let text =
                    format!("{:?} is not known; known are {}", spec.instance_type, instances::names().join(", "));
                problems.push(problem(format!("{path}.instanceType"), text));
            }
            let (min, max, desired) = (spec.min_size, spec.max_size, spec.desired_size);
            if min < 0 || min > desired || desired > max {
                let text = format!("minSize {min}, desiredCapacity {desired} and maxSize {max} must be in this order");
                problems.push(problem(format!("{path}.desiredCapacity"), text));
            }
        }
        problems
    }
}

/// Names of groups become names of objects and values of labels.
fn check_object_name(field: &str, name: &str) -> Option<ConfigError> {
    let fits = (1..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    (!fits).then(|| problem(field, format!("{name:?} must be 1 to 63 lower-case letters, digits and inner hyphens")))
}

fn check_choice(field: &str, value: Option<&str>, choices: &[&str]) -> Option<ConfigError> {
    let value = value.filter(|value| !choices.contains(value))?;
    Some(problem(field, format!("{value:?} is not one of {}", choices.join(", "))))
}

/// Cluster names become parts of file and interface names.
fn check_name(field: &str, name: &str) -> Option<ConfigError> {
    let fits = (1..=100).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (!fits).then(|| {
        problem(
            field,
            format!("{name:?} must be 1 to 100 letters, digits and hyphens, and begin with a letter or digit"),
        )
    })
}

fn check_version(version: &str) -> Option<ConfigError> {
    let minor = version.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok());
    match minor {
        Some(minor) if minor <= 36 => None,
        _ => Some(problem("metadata.version", format!("{version:?} is not a version up to 1.36"))),
    }
}

fn check_cidr(cidr: Ipv4Net) -> Option<ConfigError> {
    let fits = (16..=24).contains(&cidr.prefix_len()) && cidr.trunc() == cidr;
    (!fits).then(|| problem("vpc.cidr", format!("{cidr} must be a network of /16 to /24 without host bits")))
}

fn check_profiles(profiles: &[ProfileConfig]) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    for (index, profile) in profiles.iter().enumerate() {
        let field = format!("fargateProfiles[{index}]");
        if profile.name.is_empty() {
            problems.push(problem(format!("{field}.name"), "invalid Fargate profile: empty name"));
        }
        if profile.name.starts_with("eks-") {
            problems.push(problem(format!("{field}.name"), "may not start with \"eks-\""));
        }
        if profiles[..index].iter().any(|earlier| earlier.name == profile.name) {
            problems.push(problem(format!("{field}.name"), format!("{:?} is used twice", profile.name)));
        }
        problems.extend(check_selectors(&field, profile.selectors.as_slice()));
        problems.extend(check_choice(
            &format!("{field}.capacityType"),
            profile.capacity_type.as_deref(),
            &["ON_DEMAND", "FARGATE_SPOT"],
        ));
    }
    problems
}

fn check_selectors(field: &str, selectors: &[ProfileSelector]) -> Vec<ConfigError> {
    if selectors.is_empty() {
        return vec![problem(format!("{field}.selectors"), "invalid Fargate profile: no profile selector")];
    }
    let empty = selectors.iter().enumerate().filter(|(_, selector)| selector.namespace.is_empty());
    empty
        .map(|(index, _)| {
            problem(
                format!("{field}.selectors[{index}]"),
                format!("invalid profile selector at index #{index}: empty namespace"),
            )
        })
        .collect()
}

impl From<&ProfileConfig> for FargateProfileSpec {
    fn from(config: &ProfileConfig) -> Self {
        Self {
            pod_execution_role_arn: config.pod_execution_role_arn.clone(),
            subnets: config.subnets.clone(),
            selectors: config.selectors.clone(),
            tags: config.tags.clone(),
            capacity_type: config.capacity_type.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edit: impl FnOnce(&mut ClusterConfig), expected: &[&str]) {
        let mut config = ClusterConfig::fargate_default("demo", "us-east-1");
        edit(&mut config);
        let found: Vec<String> = config.check().iter().map(|problem| problem.field.clone()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn rules_of_the_file() {
        check(|_| {}, &[]);
        check(|c| c.metadata.name = "a b".into(), &["metadata.name"]);
        check(|c| c.metadata.region.clear(), &["metadata.region"]);
        check(|c| c.metadata.version = Some("1.99".into()), &["metadata.version"]);
        check(|c| c.metadata.version = Some("1.15".into()), &[]);
        check(|c| c.fargate_profiles[0].name.clear(), &["fargateProfiles[0].name"]);
        check(|c| c.fargate_profiles[0].name = "eks-x".into(), &["fargateProfiles[0].name"]);
        check(|c| c.fargate_profiles.push(c.fargate_profiles[0].clone()), &["fargateProfiles[1].name"]);
        check(|c| c.fargate_profiles[0].selectors.clear(), &["fargateProfiles[0].selectors"]);
        check(|c| c.fargate_profiles[0].selectors[1].namespace.clear(), &["fargateProfiles[0].selectors[1]"]);
        check(|c| c.vpc.cidr = Some("192.168.1.0/16".parse().unwrap()), &["vpc.cidr"]);
        check(|c| c.vpc.nat.gateway = Some("Both".into()), &["vpc.nat.gateway"]);
    }
}
