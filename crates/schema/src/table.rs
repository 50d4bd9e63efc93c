//! The table: one row per kind, in discovery order.
//!
//! Rows are data ([`rows`], [`own`]); what differs between kinds in behaviour lives with the behaviour. Never changes after
//! it was built.

mod build;
mod measured;
mod own;
mod rows;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::crd::Custom;
use crate::facts::{TypeId, TypeRef, TypeSet};

/// Group, version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gvk {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// Kind, such as `Pod`.
    pub kind: String,
}

impl Gvk {
    /// From its three parts.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `group/version`, or only the version for the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

/// `group/version`, or only the version for the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// Splits an `apiVersion` into group and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// What may be done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// POST.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// PATCH.
    Patch,
    /// PUT.
    Update,
    /// GET with `watch=true`.
    Watch,
}

impl Verb {
    /// The name used in discovery and authorisation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A path below an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Name, such as `status`.
    pub name: String,
    /// What it takes and returns (the kind itself for `status`, `autoscaling/v1 Scale` for `scale`).
    pub gvk: Gvk,
    /// What may be done with it.
    pub verbs: Vec<Verb>,
}

/// Behaviour switches of a kind (facts, section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// C: PUT creates an absent object.
    pub create_on_update: bool,
    /// U: PUT without resourceVersion overwrites.
    pub unconditional_update: bool,
    /// G: `metadata.generation` is kept.
    pub generation: bool,
    /// R: DELETE returns the object instead of a Status.
    pub returns_deleted: bool,
    /// O: dependents are orphaned unless the request says otherwise.
    pub orphan_by_default: bool,
}

/// A printed column after Name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// 0: always shown; 1: only with `-o wide`.
    pub priority: i32,
}

/// One row: everything that is known about a kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural resource name, as in URLs.
    pub plural: String,
    /// Singular resource name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// What may be done; in the order of discovery (alphabetical).
    pub verbs: Vec<Verb>,
    /// Paths below an object, sorted by name.
    pub subresources: Vec<Subresource>,
    /// Behaviour switches.
    pub flags: Flags,
    /// Printed columns after Name; empty means the default table (Name, Created At).
    pub columns: Vec<Column>,
    /// Field labels for field selectors besides `metadata.name` and `metadata.namespace`.
    pub field_labels: Vec<String>,
    /// What only kinds that a CustomResourceDefinition made have.
    pub custom: Option<Arc<Custom>>,
    pub(crate) types: Arc<TypeSet>,
    pub(crate) root: TypeId,
}

impl Kind {
    /// The object type of the kind.
    pub fn root(&self) -> TypeRef<'_> {
        TypeRef { set: &self.types, id: self.root }
    }

    /// All types that this kind's fields can refer to.
    pub fn types(&self) -> &TypeSet {
        &self.types
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(&self.group, &self.version, &self.kind)
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `apiVersion` in which its objects are worked on and, but for those that a webhook converts on the way to the store,
    /// stored: custom kinds are stored in one of their versions.
    pub fn stored_api_version(&self) -> String {
        let named_apart = self.custom.as_ref().filter(|custom| custom.conversion.is_none());
        api_version(&self.group, named_apart.map_or(&self.version, |custom| &custom.storage_version))
    }

    /// Kind of a list of them.
    pub fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.kind), |custom| custom.list_kind.clone())
    }

    /// `plural.group`, or only the plural for the core group: the form used in messages.
    pub fn resource_text(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The verb is offered.
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Status is written only through its subresource.
    pub fn has_status_subresource(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Something is stored: not one of the create-only review kinds.
    pub fn is_stored(&self) -> bool {
        self.allows(Verb::List)
    }

    /// It is this group and plural, whatever the version.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// All kinds the server has. Immutable: a change of custom kinds makes another table.
#[derive(Clone, Debug)]
pub struct Table {
    kinds: Vec<Arc<Kind>>,
    by_resource: BTreeMap<String, usize>,
    by_kind: BTreeMap<Gvk, usize>,
    by_gvk: Arc<BTreeMap<Gvk, TypeId>>,
    types: Arc<TypeSet>,
    own_prose: Arc<Vec<(String, &'static str, &'static str)>>,
}

/// One group with its versions, most preferred first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Name; empty for the core group.
    pub name: &'a str,
    /// Versions.
    pub versions: Vec<&'a str>,
}

impl Table {
    /// The built-in table: Kubernetes' kinds and ours.
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Table> = OnceLock::new();
        BUILTIN.get_or_init(build::builtin)
    }

    /// The built-in table with custom kinds behind it, in the order given. A custom kind that a built-in one stands in
    /// the way of is left out.
    pub fn with_custom(kinds: impl IntoIterator<Item = Arc<Kind>>) -> Self {
        let mut table = Self::builtin().clone();
        for kind in kinds {
            table.push(kind);
        }
        table
    }

    fn push(&mut self, kind: Arc<Kind>) {
        let resource = format!("{}/{}/{}", kind.group, kind.version, kind.plural);
        if self.by_resource.contains_key(&resource) || self.by_kind.contains_key(&kind.gvk()) {
            return;
        }
        self.by_resource.insert(resource, self.kinds.len());
        self.by_kind.insert(kind.gvk(), self.kinds.len());
        self.kinds.push(kind);
    }

    /// All kinds, in discovery order.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().map(|kind| &**kind)
    }

    /// The same, to be kept beyond the table.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter()
    }

    /// The kind behind a URL.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_resource.get(&format!("{group}/{version}/{plural}")).map(|at| &self.kinds[*at])
    }

    /// The kind of an object.
    pub fn gvk(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.by_kind.get(&Gvk::new(group, version, kind)).map(|at| &self.kinds[*at])
    }

    /// The kind of an object, from its `apiVersion` and `kind`.
    pub fn object_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = split_api_version(api_version);
        self.gvk(group, version, kind)
    }

    /// The type of anything with a group, version and kind, stored or not (`DeleteOptions`, `Scale`, `Eviction`).
    pub fn type_of(&self, gvk: &Gvk) -> Option<TypeRef<'_>> {
        self.by_gvk.get(gvk).map(|id| TypeRef { set: &self.types, id: *id })
    }

    /// Descriptions of our own types: definition, field (empty for the type itself), text.
    pub(crate) fn own_prose(&self) -> &[(String, &'static str, &'static str)] {
        &self.own_prose
    }

    /// All built-in types.
    pub fn types(&self) -> &TypeSet {
        &self.types
    }

    /// Groups in discovery order, the core group first.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for kind in self.kinds() {
            match groups.iter_mut().find(|group| group.name == kind.group) {
                Some(group) if group.versions.contains(&kind.version.as_str()) => {}
                Some(group) => group.versions.push(&kind.version),
                None => groups.push(Group { name: &kind.group, versions: vec![&kind.version] }),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_type_and_is_found() {
        let table = Table::builtin();
        assert_eq!(table.kinds().count(), rows::ROWS.len());
        for kind in table.kinds() {
            let found = table.resource(&kind.group, &kind.version, &kind.plural).map(|kind| kind.gvk());
            assert_eq!(found, Some(kind.gvk()));
            assert_eq!(table.object_kind(&kind.api_version(), &kind.kind).map(|kind| kind.gvk()), Some(kind.gvk()));
            if kind.is_stored() && kind.kind != "ComponentStatus" {
                assert!(kind.root().field("metadata").is_some(), "{}", kind.kind);
                let list = Gvk::new(&kind.group, &kind.version, &kind.list_kind());
                assert!(table.type_of(&list).is_some(), "{list:?}");
            }
            for sub in kind.subresources.iter().filter(|sub| !sub.gvk.kind.ends_with("Options")) {
                assert!(table.type_of(&sub.gvk).is_some(), "{}/{}", kind.plural, sub.name);
            }
        }
    }

    #[test]
    fn rows_say_what_upstream_says() {
        fn check(plural: &str, expected: &str) {
            let kind = Table::builtin().kinds().find(|kind| kind.plural == plural).expect(plural);
            let verbs: Vec<&str> = kind.verbs.iter().map(|verb| verb.as_str()).collect();
            let subs: Vec<&str> = kind.subresources.iter().map(|sub| sub.name.as_str()).collect();
            let found = format!(
                "{} {} {} {:?} {}",
                kind.singular,
                kind.namespaced,
                kind.short_names.join("+"),
                kind.flags.generation,
                [verbs.join(","), subs.join(",")].join(" ")
            );
            assert_eq!(found, expected);
        }
        check("namespaces", "namespace false ns false create,delete,get,list,patch,update,watch finalize,status");
        check(
            "deployments",
            "deployment true deploy true create,delete,deletecollection,get,list,patch,update,watch scale,status",
        );
        check(
            "customresourcedefinitions",
            "customresourcedefinition false crd+crds true create,delete,deletecollection,get,list,patch,update,watch status",
        );
        check("tokenreviews", "tokenreview false  false create ");
        check(
            "fargateprofiles",
            "fargateprofile false fp true create,delete,deletecollection,get,list,patch,update,watch status",
        );
    }

    #[test]
    fn facts_carry_what_patches_and_protobuf_need() {
        fn check(ty: &str, field: &str, expected: &str) {
            let ty = Table::builtin().types().named(ty).expect(ty);
            let field = ty.field(field).expect(field);
            let proto = field.proto.as_ref().map(|proto| (proto.via.clone(), proto.tag));
            let strategy = field.patch_strategy.unwrap_or_default();
            let found = format!(
                "{:?} {:?} merge={} key={:?} pointer={} proto={proto:?}",
                field.list_type, field.list_map_keys, strategy.merge, field.merge_key, field.pointer
            );
            assert_eq!(found, expected);
        }
        let (container, service) = ("io.k8s.api.core.v1.Container", "io.k8s.api.core.v1.ServiceSpec");
        check(
            container,
            "ports",
            r#"Map ["containerPort", "protocol"] merge=true key=Some("containerPort") pointer=false proto=Some(([], 6))"#,
        );
        check(service, "selector", "Atomic [] merge=false key=None pointer=false proto=Some(([], 2))");
        check(
            "io.k8s.api.apps.v1.DeploymentSpec",
            "replicas",
            "Atomic [] merge=false key=None pointer=true proto=Some(([], 1))",
        );
        check(
            "io.k8s.api.core.v1.SecretKeySelector",
            "name",
            "Atomic [] merge=false key=None pointer=false proto=Some(([1], 1))",
        );
        let selector = Table::builtin().types().named(service).and_then(|ty| ty.field("selector"));
        assert!(selector.is_some_and(|field| field.atomic));
        let volume = Table::builtin().types().named("io.k8s.api.core.v1.PersistentVolumeSpec");
        assert!(volume.and_then(|ty| ty.field("claimRef")).is_some_and(|field| field.granular));
    }
}
