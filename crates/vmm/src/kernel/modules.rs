//! Kernel modules: where they are, what they depend on (from the module files themselves, as an unpacked package has no
//! `modules.dep`), and their content without the signature, which the guest would only spend time on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

/// One module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name with underscores.
    pub name: String,
    /// Content without signature.
    pub content: Vec<u8>,
}

/// The modules could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A module is neither a file nor built in.
    #[error("kernel module {name} is not in {}\nhint: use Debian's linux-image-cloud kernel", directory.display())]
    Missing {
        /// Name.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// Modules of this kernel are compressed.
    #[error("kernel module {} is compressed, which is not supported\nhint: use Debian 12's linux-image-cloud-amd64", .0.display())]
    Compressed(PathBuf),
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The modules of `wanted` and all they depend on, each after its dependencies. Built-in ones are left out.
///
/// # Errors
/// `ModuleError`.
pub fn load_order(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>, ModuleError> {
    let mut files = BTreeMap::new();
    index(&directory.join("kernel"), &mut files)?;
    let builtin = std::fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
    let builtin = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
    let mut collector = Collector { directory, files, builtin, seen: BTreeSet::new(), order: Vec::new() };
    for name in wanted {
        collector.add(name)?;
    }
    Ok(collector.order)
}

struct Collector<'a> {
    directory: &'a Path,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    seen: BTreeSet<String>,
    order: Vec<Module>,
}

impl Collector<'_> {
    fn add(&mut self, name: &str) -> Result<(), ModuleError> {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) || !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let path = self
            .files
            .get(&name)
            .ok_or_else(|| ModuleError::Missing { name: name.clone(), directory: self.directory.to_owned() })?;
        if path.extension().is_some_and(|extension| extension != "ko") {
            return Err(ModuleError::Compressed(path.clone()));
        }
        let mut content = std::fs::read(path).map_err(|source| ModuleError::Io { path: path.clone(), source })?;
        for dependency in dependencies(&content) {
            self.add(&dependency)?;
        }
        strip_signature(&mut content);
        self.order.push(Module { name, content });
        Ok(())
    }
}

fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), ModuleError> {
    let fail = |source| ModuleError::Io { path: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `virtio_rng` for `.../virtio-rng.ko` and `.../virtio-rng.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let (name, suffix) = path.file_name()?.to_str()?.split_once(".ko")?;
    (suffix.is_empty() || suffix.starts_with('.')).then(|| name.replace('-', "_"))
}

/// The `depends=` entry of the module's information section: names between commas, ended by a zero byte.
fn dependencies(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = &content[at + KEY.len()..];
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Cuts the signature that the kernel's build appended: signature, 12 bytes that end in its length, a marker.
fn strip_signature(content: &mut Vec<u8>) {
    const MARKER: &[u8] = b"~Module signature appended~\n";
    const DESCRIPTION_BYTES: usize = 12;
    let Some(signed) = content.strip_suffix(MARKER) else { return };
    let Some(length) = signed.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else { return };
    if let Some(end) = signed.len().checked_sub(DESCRIPTION_BYTES + length) {
        content.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, path: &str, depends: &str) {
        let path = directory.join("kernel").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("\x7fELF\0license=GPL\0depends={depends}\0rest")).unwrap();
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "drivers/virtio/virtio.ko", "");
        write(dir.path(), "drivers/virtio/virtio_ring.ko", "");
        write(dir.path(), "drivers/net/virtio_net.ko", "virtio_ring,net-failover,virtio");
        write(dir.path(), "net/core/net_failover.ko", "failover");
        write(dir.path(), "drivers/char/virtio-rng.ko", "virtio");
        std::fs::write(dir.path().join("modules.builtin"), "kernel/net/core/failover.ko\n").unwrap();
        let names: Vec<_> = load_order(dir.path(), &["virtio_net", "virtio_rng"])
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        assert_eq!(names, ["virtio_ring", "net_failover", "virtio", "virtio_net", "virtio_rng"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "fs/overlay.ko.xz", "");
        for (name, text) in [("virtio_blk", "virtio_blk"), ("overlay", "compressed")] {
            let error = load_order(dir.path(), &[name]).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn signatures_are_cut() {
        let mut signed = b"code".to_vec();
        signed.extend(b"signature");
        signed.extend([0; 8]);
        signed.extend(9u32.to_be_bytes());
        signed.extend(b"~Module signature appended~\n");
        strip_signature(&mut signed);
        assert_eq!(signed, b"code");
    }
}
