//! Reads one layer: decompresses it into a scratch file, checks its digest, and merges its entries into the tree.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use tar::EntryType;

use crate::blob::{Blob, Hashing};
use crate::error::ImageError;
use crate::tree::{Content, Kind, Meta, Tree};

/// A reader that refuses to give more than its limit.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other("too large when unpacked"))?;
        Ok(count)
    }
}

/// A decompressing reader, chosen by the first bytes.
pub(crate) fn decompress<'a>(blob: &Blob) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = [0; 4];
    let count = blob.clone().read(&mut magic)?;
    let reader = BufReader::with_capacity(256 << 10, blob.clone());
    Ok(match &magic[..count] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        _ => Box::new(reader),
    })
}

/// Decompresses a blob into an unnamed file in `scratch`; returns it with its digest.
pub(crate) fn unpack(blob: &Blob, scratch: &Path, limit_bytes: u64) -> Result<(Blob, String), ImageError> {
    let fail = |error: io::Error| ImageError::too_large_or_invalid(&error);
    let mut reader = Limited { inner: decompress(blob).map_err(fail)?, left: limit_bytes };
    let file = tempfile::tempfile_in(scratch).map_err(|error| ImageError::local(scratch, &error))?;
    let mut writer = Hashing::new(io::BufWriter::with_capacity(256 << 10, &file));
    let length = io::copy(&mut reader, &mut writer).map_err(fail)?;
    writer.flush().map_err(|error| ImageError::local(scratch, &error))?;
    let digest = writer.digest();
    Ok((Blob::new(Arc::new(file), 0, length), digest))
}

impl ImageError {
    fn too_large_or_invalid(error: &io::Error) -> Self {
        let text = error.to_string();
        if text.contains("too large") {
            return Self::too_large(format!("the image is {text}; raise the limit if you trust it"));
        }
        Self::invalid(format!("a layer cannot be read: {text}"))
    }
}

/// Merges the entries of an uncompressed layer into the tree.
pub(crate) fn merge(tree: &mut Tree, layer: usize, blob: &Blob) -> Result<(), ImageError> {
    let broken = |error: io::Error| ImageError::invalid(format!("layer {layer} is not a tar archive: {error}"));
    let mut archive = tar::Archive::new(BufReader::with_capacity(64 << 10, blob.clone()));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = text(&entry.path_bytes())?;
        if let Some(kind) = kind(&entry, layer, &path)? {
            let meta = meta(&mut entry).map_err(broken)?;
            tree.apply(layer, &path, meta, kind)?;
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, ImageError> {
    let text = std::str::from_utf8(bytes);
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    text.map(str::to_owned)
        .map_err(|_| ImageError::invalid(format!("the image has a name that is not UTF-8: {:?}", shown())))
}

fn kind<R: Read>(entry: &tar::Entry<'_, R>, layer: usize, path: &str) -> Result<Option<Kind>, ImageError> {
    let target = || {
        let link = entry.link_name_bytes();
        let link = link.ok_or_else(|| ImageError::invalid(format!("{path:?} is a link without a target")))?;
        text(&link)
    };
    Ok(Some(match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            Kind::File(Content { layer, offset: entry.raw_file_position(), length: entry.size() })
        }
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target()?),
        EntryType::Link => Kind::Hardlink(target()?),
        EntryType::Fifo => Kind::Fifo,
        EntryType::XGlobalHeader => return Ok(None),
        EntryType::Char if path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh.")) => Kind::Fifo,
        EntryType::Char | EntryType::Block => {
            return Err(ImageError::invalid(format!("the image has the device node {path:?}, which is not allowed")));
        }
        other => return Err(ImageError::invalid(format!("{path:?} is of tar type {other:?}, which is not supported"))),
    }))
}

fn meta<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Meta> {
    let header = entry.header();
    let id = |id: io::Result<u64>| id.map(|id| u32::try_from(id).unwrap_or(u32::MAX - 1));
    let mut meta = Meta {
        mode: u16::try_from(header.mode()? & 0o7777).unwrap_or(0),
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mtime_seconds: i64::try_from(header.mtime()?).unwrap_or(0),
        xattrs: Vec::new(),
    };
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let name = extension.key_bytes().strip_prefix(b"SCHILY.xattr.");
            if let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) {
                meta.xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(meta)
}

/// Copies an archive that may be compressed into an unnamed file and gives it back as one blob.
pub(crate) fn open_archive(path: &Path, scratch: &Path, limit_bytes: u64) -> Result<Blob, ImageError> {
    let file = File::open(path).map_err(|error| ImageError::local(path, &error))?;
    let length = file.metadata().map_err(|error| ImageError::local(path, &error))?.len();
    let blob = Blob::new(Arc::new(file), 0, length);
    let mut magic = [0; 2];
    let count = blob.clone().read(&mut magic).map_err(|error| ImageError::local(path, &error))?;
    if count == 2 && matches!(magic, [0x1f, 0x8b] | [0x28, 0xb5]) {
        return unpack(&blob, scratch, limit_bytes).map(|(blob, _)| blob);
    }
    Ok(blob)
}
