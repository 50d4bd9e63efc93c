//! Reads the regular part of Go type declarations: structs with tags, named scalars, constants, imports.
//!
//! Not a Go parser: it relies on gofmt's layout and on API types being flat.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// One package of API types.
#[derive(Default)]
pub struct Package {
    /// Structs by name.
    pub structs: BTreeMap<String, Vec<Member>>,
    /// Named types that are not structs, with what they are (`string`, `map[ResourceName]resource.Quantity`).
    pub named: BTreeMap<String, String>,
    /// Names of types marked as closed sets.
    pub enums: Vec<String>,
    /// Constants: type name to values.
    pub constants: BTreeMap<String, Vec<String>>,
    /// Import aliases to package paths.
    pub imports: BTreeMap<String, String>,
}

/// One field of a struct.
pub struct Member {
    /// Go type, as written.
    pub ty: String,
    /// The struct tag, without backticks.
    pub tag: String,
    /// Markers of the comment above (`+listType=map`), without the plus.
    pub markers: Vec<String>,
}

impl Member {
    /// A part of the struct tag, such as `json`.
    pub fn tag(&self, key: &str) -> Option<&str> {
        let start = self.tag.find(&format!("{key}:\""))? + key.len() + 2;
        let rest = &self.tag[start..];
        Some(&rest[..rest.find('"')?])
    }

    /// Written into the enclosing object.
    pub fn inline(&self) -> bool {
        self.tag("json").is_some_and(|json| json.contains(",inline"))
    }

    /// A marker's value.
    pub fn marker(&self, key: &str) -> Option<&str> {
        self.markers.iter().find_map(|marker| marker.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Directories (below `k8s.io`) that hold API types, with the prefix of their OpenAPI names.
const ROOTS: [(&str, &str); 6] = [
    ("api", "io.k8s.api"),
    ("apimachinery/pkg/apis/meta", "io.k8s.apimachinery.pkg.apis.meta"),
    ("apimachinery/pkg/runtime", "io.k8s.apimachinery.pkg.runtime"),
    ("apimachinery/pkg/version", "io.k8s.apimachinery.pkg.version"),
    ("apimachinery/pkg/types", "io.k8s.apimachinery.pkg.types"),
    ("apiextensions-apiserver/pkg/apis/apiextensions", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions"),
];

/// All packages, by the prefix of their OpenAPI definition names (`io.k8s.api.core.v1`).
pub fn read_packages(sources: &Path) -> Result<BTreeMap<String, Package>> {
    let mut packages = BTreeMap::new();
    for (directory, prefix) in ROOTS {
        read_tree(&sources.join("k8s.io").join(directory), prefix, &mut packages)?;
    }
    Ok(packages)
}

fn read_tree(directory: &Path, prefix: &str, packages: &mut BTreeMap<String, Package>) -> Result<()> {
    let mut package = Package::default();
    for entry in std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && name != "testdata" {
            read_tree(&path, &format!("{prefix}.{name}"), packages)?;
        } else if is_source(&name) {
            Reader::new(&mut package).read(&std::fs::read_to_string(&path)?);
        }
    }
    packages.insert(prefix.to_owned(), package);
    Ok(())
}

fn is_source(name: &str) -> bool {
    let generated = ["zz_", "generated", "types_swagger"].iter().any(|prefix| name.starts_with(prefix));
    name.ends_with(".go") && !name.ends_with("_test.go") && !generated
}

struct Reader<'a> {
    package: &'a mut Package,
    markers: Vec<String>,
    open_struct: Option<String>,
    in_imports: bool,
    in_comment: bool,
}

impl<'a> Reader<'a> {
    fn new(package: &'a mut Package) -> Self {
        Self { package, markers: Vec::new(), open_struct: None, in_imports: false, in_comment: false }
    }

    fn read(mut self, source: &str) {
        for line in source.lines() {
            let trimmed = line.trim();
            if self.skip_block_comment(trimmed) {
                continue;
            }
            match trimmed.strip_prefix("//") {
                Some(comment) => self.comment(comment.trim()),
                None => self.code(line, trimmed),
            }
        }
    }

    fn skip_block_comment(&mut self, trimmed: &str) -> bool {
        let opens = trimmed.starts_with("/*");
        let was = self.in_comment || opens;
        self.in_comment = was && !trimmed.contains("*/");
        was
    }

    fn comment(&mut self, comment: &str) {
        if let Some(marker) = comment.strip_prefix('+') {
            self.markers.push(marker.to_owned());
        }
    }

    fn code(&mut self, line: &str, trimmed: &str) {
        if self.in_imports {
            self.import(trimmed);
        } else if let Some(name) = self.open_struct.clone() {
            self.member(&name, line, trimmed);
        } else if trimmed == "import (" {
            self.in_imports = true;
        } else if let Some(import) = line.strip_prefix("import ") {
            self.import(import);
        } else if let Some(declaration) = line.strip_prefix("type ") {
            self.declaration(declaration);
        } else {
            self.constant(trimmed);
        }
        if !trimmed.is_empty() {
            self.markers.clear();
        }
    }

    fn import(&mut self, line: &str) {
        self.in_imports = self.in_imports && line != ")";
        let Some(path) = line.split('"').nth(1) else { return };
        let alias = line.split('"').next().unwrap_or_default().trim();
        let last = path.rsplit('/').next().unwrap_or_default();
        self.package.imports.insert(if alias.is_empty() { last } else { alias }.to_owned(), path.to_owned());
    }

    fn declaration(&mut self, declaration: &str) {
        let Some((name, rest)) = declaration.split_once(' ') else { return };
        let rest = rest.trim_start_matches("= ").trim();
        match rest.strip_prefix("struct") {
            Some(body) if body.trim() == "{" => {
                self.package.structs.insert(name.into(), Vec::new());
                self.open_struct = Some(name.into());
            }
            Some(_) => {
                self.package.structs.insert(name.into(), Vec::new());
            }
            None => {
                self.package.named.insert(name.into(), rest.split("//").next().unwrap_or(rest).trim().into());
            }
        }
        if self.markers.iter().any(|marker| marker == "enum") {
            self.package.enums.push(name.into());
        }
    }

    fn member(&mut self, name: &str, line: &str, trimmed: &str) {
        if line == "}" {
            self.open_struct = None;
            return;
        }
        let (declaration, tag) = match trimmed.split_once('`') {
            Some((declaration, tag)) => (declaration, tag.split('`').next().unwrap_or_default()),
            None => (trimmed.split("//").next().unwrap_or_default(), ""),
        };
        let ty = declaration.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        let ty = if ty.is_empty() { declaration.trim().to_owned() } else { ty };
        let member = Member { ty, tag: tag.to_owned(), markers: std::mem::take(&mut self.markers) };
        if let (false, Some(members)) = (member.ty.is_empty(), self.package.structs.get_mut(name)) {
            members.push(member);
        }
    }

    /// `PullAlways PullPolicy = "Always"`, in a block or after `const`.
    fn constant(&mut self, trimmed: &str) {
        let Some((declaration, value)) = trimmed.trim_start_matches("const ").split_once(" = \"") else { return };
        let words: Vec<&str> = declaration.split_whitespace().collect();
        if let ([_, ty], Some((value, _))) = (words.as_slice(), value.split_once('"')) {
            self.package.constants.entry((*ty).to_owned()).or_default().push(value.to_owned());
        }
    }
}
