//! The merged file tree of an image, built layer by layer in memory. Pure: entries in, tree out.
//!
//! Source: OCI image specification, layers (whiteouts and opaque directories apply to lower layers only).

use std::collections::BTreeMap;

use crate::error::ImageError;

/// Entries an image may have.
const ENTRIES_MAX: usize = 1_000_000;
/// Directories a path may go down.
const DEPTH_MAX: usize = 256;
/// Symbolic links that are followed for one path.
const LINKS_MAX: usize = 40;

/// Owner, permission bits and times of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_seconds: i64,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Index of the layer.
    pub(crate) layer: usize,
    /// Offset in the layer's uncompressed tar.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// What an entry of a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Content),
    Symlink(String),
    Fifo,
    /// Another name of an earlier path.
    Hardlink(String),
}

/// One inode.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) meta: Meta,
    pub(crate) node: Node,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Directory(BTreeMap<String, Child>),
    File(Content),
    Symlink(String),
    Fifo,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    pub(crate) inode: usize,
    /// The newest layer that named it.
    layer: usize,
}

/// The tree; inode 0 is the root.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) inodes: Vec<Inode>,
}

impl Default for Tree {
    fn default() -> Self {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        Self { inodes: vec![Inode { meta, node: Node::Directory(BTreeMap::new()) }] }
    }
}

/// The components of a path inside the image; refuses what leads out of it.
fn components(path: &str) -> Result<Vec<&str>, ImageError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(ImageError::invalid(format!("the image has the path {path:?}, which leads out of it")));
    }
    if parts.len() > DEPTH_MAX || parts.iter().any(|part| part.len() > 255 || part.contains('\0')) {
        return Err(ImageError::invalid(format!(
            "the image has the path {path:?}, which is too deep, too long or has a NUL"
        )));
    }
    Ok(parts)
}

impl Tree {
    fn children(&self, inode: usize) -> Option<&BTreeMap<String, Child>> {
        match &self.inodes[inode].node {
            Node::Directory(children) => Some(children),
            _ => None,
        }
    }

    fn children_mut(&mut self, inode: usize) -> Option<&mut BTreeMap<String, Child>> {
        match &mut self.inodes[inode].node {
            Node::Directory(children) => Some(children),
            _ => None,
        }
    }

    fn add(&mut self, inode: Inode) -> Result<usize, ImageError> {
        if self.inodes.len() >= ENTRIES_MAX {
            return Err(ImageError::too_large(format!("the image has more than {ENTRIES_MAX} entries")));
        }
        self.inodes.push(inode);
        Ok(self.inodes.len() - 1)
    }

    /// The directory at a path, made as needed; symbolic links on the way are followed inside the image.
    fn directory(&mut self, parts: &[&str], layer: usize) -> Result<usize, ImageError> {
        let mut todo: Vec<String> = parts.iter().rev().map(|part| (*part).to_owned()).collect();
        let (mut at, mut links) = (vec![0], 0);
        while let Some(part) = todo.pop() {
            let here = at.last().copied().unwrap_or(0);
            if part == ".." {
                at.truncate(at.len().saturating_sub(1).max(1));
                continue;
            }
            let found = self.children(here).and_then(|children| children.get(&part)).map(|child| child.inode);
            match found.map(|inode| (inode, self.inodes[inode].node.clone_link())) {
                Some((_, Some(target))) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(ImageError::invalid(format!("the image has a loop of symbolic links at {part:?}")));
                    }
                    if target.starts_with('/') {
                        at = vec![0];
                    }
                    todo.extend(target.split('/').filter(|p| !p.is_empty() && *p != ".").rev().map(str::to_owned));
                }
                Some((inode, None)) if self.children(inode).is_some() => at.push(inode),
                _ => at.push(self.put_directory(here, &part, layer)?),
            }
        }
        Ok(at.last().copied().unwrap_or(0))
    }

    fn put_directory(&mut self, parent: usize, name: &str, layer: usize) -> Result<usize, ImageError> {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        let inode = self.add(Inode { meta, node: Node::Directory(BTreeMap::new()) })?;
        self.link(parent, name, Child { inode, layer });
        Ok(inode)
    }

    fn link(&mut self, parent: usize, name: &str, child: Child) {
        if let Some(children) = self.children_mut(parent) {
            children.insert(name.to_owned(), child);
        }
    }

    /// Merges one entry of a layer; layers come in order, the lowest first.
    pub(crate) fn apply(&mut self, layer: usize, path: &str, meta: Meta, kind: Kind) -> Result<(), ImageError> {
        let parts = components(path)?;
        let Some((name, parents)) = parts.split_last() else {
            if kind == Kind::Directory {
                self.inodes[0].meta = meta;
            }
            return Ok(());
        };
        let parent = self.directory(parents, layer)?;
        if *name == ".wh..wh..opq" {
            return self.hide_all(parent, layer);
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            return self.hide(parent, hidden, layer);
        }
        let existing = self.children(parent).and_then(|children| children.get(*name)).copied();
        let inode = match kind {
            Kind::Directory => match existing.filter(|child| self.children(child.inode).is_some()) {
                Some(child) => {
                    self.inodes[child.inode].meta = meta;
                    child.inode
                }
                None => self.add(Inode { meta, node: Node::Directory(BTreeMap::new()) })?,
            },
            Kind::File(content) => self.add(Inode { meta, node: Node::File(content) })?,
            Kind::Symlink(target) => self.add(Inode { meta, node: Node::Symlink(target) })?,
            Kind::Fifo => self.add(Inode { meta, node: Node::Fifo })?,
            Kind::Hardlink(target) => self.find_link_target(&target)?,
        };
        self.link(parent, name, Child { inode, layer });
        Ok(())
    }

    fn find_link_target(&mut self, target: &str) -> Result<usize, ImageError> {
        let parts = components(target)?;
        let missing = || ImageError::invalid(format!("the image has a hard link to {target:?}, which is not there"));
        let (name, parents) = parts.split_last().ok_or_else(missing)?;
        let mut at = 0;
        for part in parents {
            at = self.children(at).and_then(|c| c.get(*part)).map(|child| child.inode).ok_or_else(missing)?;
        }
        let inode = self.children(at).and_then(|c| c.get(*name)).map(|child| child.inode).ok_or_else(missing)?;
        if self.children(inode).is_some() {
            return Err(ImageError::invalid(format!("the image has a hard link to the directory {target:?}")));
        }
        Ok(inode)
    }

    fn hide(&mut self, parent: usize, name: &str, layer: usize) -> Result<(), ImageError> {
        if let Some(children) = self.children_mut(parent)
            && children.get(name).is_some_and(|child| child.layer < layer)
        {
            children.remove(name);
        }
        Ok(())
    }

    fn hide_all(&mut self, parent: usize, layer: usize) -> Result<(), ImageError> {
        if let Some(children) = self.children_mut(parent) {
            children.retain(|_, child| child.layer >= layer);
        }
        Ok(())
    }

    /// Paths and inodes of everything that is left, parents first, in order of names.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn paths(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        let mut todo = vec![(String::new(), 0)];
        while let Some((path, inode)) = todo.pop() {
            for (name, child) in self.children(inode).into_iter().flatten() {
                let path = format!("{path}/{name}");
                todo.push((path.clone(), child.inode));
                found.push((path, child.inode));
            }
        }
        found.sort();
        found
    }
}

impl Node {
    fn clone_link(&self) -> Option<String> {
        match self {
            Self::Symlink(target) => Some(target.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies entries written as `layer path kind`: `d`, `f`, `p`, `l:target`, `h:target`.
    fn build(entries: &[&str]) -> Result<Tree, ImageError> {
        let mut tree = Tree::default();
        for entry in entries {
            let words: Vec<&str> = entry.split(' ').collect();
            let layer = words[0].parse().unwrap();
            let kind = match words[2].split_once(':') {
                Some(("l", target)) => Kind::Symlink(target.into()),
                Some((_, target)) => Kind::Hardlink(target.into()),
                None if words[2] == "d" => Kind::Directory,
                None if words[2] == "p" => Kind::Fifo,
                None => Kind::File(Content { layer, offset: 0, length: 1 }),
            };
            tree.apply(layer, words[1], Meta::default(), kind)?;
        }
        Ok(tree)
    }

    fn check(entries: &[&str], expected: &[&str]) {
        let found: Vec<String> = build(entries).unwrap().paths().into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn layers_are_merged() {
        check(&["0 a/b f", "1 a/c f"], &["/a", "/a/b", "/a/c"]);
        check(&["0 ./a d", "0 /a/b f"], &["/a", "/a/b"]);
        check(&["0 a f", "1 a/b f"], &["/a", "/a/b"]);
        check(&["0 a/b f", "1 a f"], &["/a"]);
        check(&["0 a/b f", "1 a d"], &["/a", "/a/b"]);
    }

    #[test]
    fn whiteouts_hide_lower_layers_only() {
        check(&["0 a/b f", "0 a/c f", "1 a/.wh.b f"], &["/a", "/a/c"]);
        check(&["0 a/b f", "1 a/n f", "1 a/.wh..wh..opq f"], &["/a", "/a/n"]);
        check(&["1 a/b f", "1 a/.wh.b f"], &["/a", "/a/b"]);
        check(&["0 a/b f", "1 .wh.a f"], &[]);
    }

    #[test]
    fn links_on_the_way_stay_inside() {
        check(&["0 usr/lib d", "0 lib l:usr/lib", "1 lib/x f"], &["/lib", "/usr", "/usr/lib", "/usr/lib/x"]);
        check(&["0 out l:../../etc", "1 out/x f"], &["/etc", "/etc/x", "/out"]);
        check(&["0 abs l:/etc", "1 abs/x f"], &["/abs", "/etc", "/etc/x"]);
    }

    #[test]
    fn hard_links_share_an_inode() {
        let tree = build(&["0 a f", "1 b h:a"]).unwrap();
        let paths = tree.paths();
        assert_eq!(paths[0].1, paths[1].1);
    }

    #[test]
    fn hostile_entries_are_refused() {
        for entries in [
            &["0 ../x f"][..],
            &["0 a/../../x f"],
            &["0 a h:../../etc/shadow"],
            &["0 a h:missing"],
            &["0 d d", "0 a h:d"],
            &["0 a l:b", "0 b l:a", "1 a/x f"],
        ] {
            assert!(build(entries).is_err(), "{entries:?}");
        }
        let deep = format!("0 {} f", "a/".repeat(300));
        assert!(build(&[&deep]).is_err());
        let long = format!("0 {} f", "a".repeat(300));
        assert!(build(&[&long]).is_err());
    }
}
