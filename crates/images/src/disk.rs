//! Writes a merged tree as a read-only ext4 disk.
//!
//! ext4 is in the guest kernel without a module, keeps hard links and extended attributes, and reads fastest under
//! emulation; the file is sparse, so its unused space costs nothing.

use std::collections::BTreeMap;
use std::path::Path;

use mkext4::sink::FileSink;
use mkext4::{FsBuilder, InodeCount, InodeHandle, Options, ROOT, SpecialKind};

use crate::blob::Blob;
use crate::error::{ImageError, Kind};
use crate::tree::{Content, Meta, Node, Tree};

const BLOCK_BYTES: u64 = 4096;
/// Room for the file system's own tables beyond what is computed.
const SPARE_BYTES: u64 = 32 << 20;
/// The smallest journal the format takes; a read-only mount never uses it.
const JOURNAL_BLOCKS: u32 = 1024;

fn failed(error: mkext4::Error) -> ImageError {
    ImageError::new(Kind::Local, format!("the image's disk cannot be made: {error}"))
}

fn ext4_meta(meta: &Meta) -> mkext4::Meta {
    mkext4::Meta::new(meta.mode, meta.uid, meta.gid, (meta.mtime_seconds, 0))
}

/// Bytes of content, and of the whole disk, for a tree.
fn sizes(tree: &Tree) -> (u64, u64) {
    let (mut content, mut blocks) = (0, 0);
    for inode in &tree.inodes {
        let length = match &inode.node {
            Node::File(file) => file.length,
            Node::Directory(children) => children.len() as u64 * 64 + BLOCK_BYTES,
            Node::Symlink(target) => target.len() as u64,
            Node::Fifo => 0,
        };
        if matches!(inode.node, Node::File(_)) {
            content += length;
        }
        blocks += length.div_ceil(BLOCK_BYTES);
    }
    let tables = tree.inodes.len() as u64 * 512;
    let total = blocks * BLOCK_BYTES + tables + u64::from(JOURNAL_BLOCKS) * BLOCK_BYTES;
    (content, (total + total / 16 + SPARE_BYTES).next_multiple_of(1 << 20))
}

struct Declared<'a> {
    builder: FsBuilder,
    handles: BTreeMap<usize, InodeHandle>,
    files: Vec<(InodeHandle, &'a Content)>,
}

impl<'a> Declared<'a> {
    /// Declares the children of a directory and everything below, without recursion.
    fn all(&mut self, tree: &'a Tree) -> Result<(), ImageError> {
        let mut todo = vec![(0, ROOT)];
        while let Some((inode, parent)) = todo.pop() {
            let Node::Directory(children) = &tree.inodes[inode].node else { continue };
            for (name, child) in children {
                if let Some(handle) = self.handles.get(&child.inode) {
                    self.builder.hardlink(parent, name, *handle).map_err(failed)?;
                    continue;
                }
                let handle = self.one(tree, parent, name, child.inode).map_err(failed)?;
                if matches!(tree.inodes[child.inode].node, Node::Directory(_)) {
                    todo.push((child.inode, handle));
                } else {
                    self.handles.insert(child.inode, handle);
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, tree: &'a Tree, parent: InodeHandle, name: &str, inode: usize) -> mkext4::Result<InodeHandle> {
        let inode = &tree.inodes[inode];
        let meta = ext4_meta(&inode.meta);
        let handle = match &inode.node {
            Node::Directory(_) => self.builder.mkdir(parent, name, meta)?,
            Node::Symlink(target) => self.builder.symlink(parent, name, target, meta)?,
            Node::Fifo => self.builder.mknod(parent, name, meta, SpecialKind::Fifo)?,
            Node::File(content) => {
                let handle = self.builder.file(parent, name, meta, content.length)?;
                if content.length > 0 {
                    self.files.push((handle, content));
                }
                handle
            }
        };
        for (name, value) in &inode.meta.xattrs {
            self.builder.set_xattr(handle, name, value)?;
        }
        Ok(handle)
    }
}

/// Writes the disk; returns its length and the bytes of content. `id` makes the file system's UUID.
pub(crate) fn write(tree: &Tree, layers: &[Blob], id: &str, path: &Path) -> Result<(u64, u64), ImageError> {
    let (content_bytes, size_bytes) = sizes(tree);
    let mut uuid = [0; 16];
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    uuid.iter_mut().zip(hex.as_bytes()).for_each(|(to, from)| *to = *from);
    let mut options = Options::new(size_bytes, uuid, 0);
    let inodes = u32::try_from(tree.inodes.len()).unwrap_or(u32::MAX);
    (options.inodes, options.reserved_percent) = (InodeCount::Exact(inodes.saturating_add(64)), 0);
    options.journal_blocks = Some(JOURNAL_BLOCKS);
    let builder = FsBuilder::new(options).map_err(failed)?;
    let mut declared = Declared { builder, handles: BTreeMap::new(), files: Vec::new() };
    declared.builder.set_meta(ROOT, ext4_meta(&tree.inodes[0].meta)).map_err(failed)?;
    declared.all(tree)?;
    let Declared { builder, files, .. } = declared;
    let layout = builder.seal().map_err(failed)?;
    let mut sink = FileSink::create(path, size_bytes).map_err(|error| ImageError::local(path, &error))?;
    let mut writer = layout.writer(&mut sink).map_err(failed)?;
    for (handle, content) in files {
        let layer = layers.get(content.layer).ok_or_else(|| ImageError::invalid("a layer is missing"))?;
        writer.fill(handle, &mut layer.slice(content.offset, content.length)).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    sink.into_file().sync_all().map_err(|error| ImageError::local(path, &error))?;
    Ok((size_bytes, content_bytes))
}
