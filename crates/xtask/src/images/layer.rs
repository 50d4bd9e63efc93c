//! One layer of an image, as an uncompressed tar file in memory. The same content gives the same bytes on any day.

use anyhow::Result;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Modification time of every entry: 2024-01-01, in seconds since 1970.
const MODIFIED_UNIX_SECONDS: u64 = 1_704_067_200;

/// A finished layer.
#[derive(Clone)]
pub struct Layer {
    pub bytes: Vec<u8>,
    /// What made it, for the image's history.
    pub created_by: String,
}

/// A layer being written.
pub struct LayerWriter {
    tar: Builder<Vec<u8>>,
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MODIFIED_UNIX_SECONDS);
    header
}

impl LayerWriter {
    pub fn new() -> Self {
        Self { tar: Builder::new(Vec::new()) }
    }

    /// Paths have no slash at their start.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(EntryType::Directory, mode, 0);
        Ok(self.tar.append_data(&mut header, format!("{path}/"), std::io::empty())?)
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode, content.len() as u64);
        Ok(self.tar.append_data(&mut header, path, content)?)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        Ok(self.tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?)
    }

    pub fn hard_link(&mut self, path: &str, target: &str) -> Result<()> {
        Ok(self.tar.append_link(&mut header(EntryType::Link, 0o755, 0), path, target)?)
    }

    pub fn finish(self, created_by: &str) -> Result<Layer> {
        Ok(Layer { bytes: self.tar.into_inner()?, created_by: created_by.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_gives_equal_bytes() {
        let make = || {
            let mut layer = LayerWriter::new();
            layer.directory("bin", 0o755).unwrap();
            layer.file("bin/a", 0o755, b"content").unwrap();
            layer.hard_link("bin/b", "bin/a").unwrap();
            layer.symlink("c", "bin/a").unwrap();
            digest(&layer.finish("test").unwrap().bytes)
        };
        assert_eq!(make(), make());
    }

    #[test]
    fn entries_are_read_back() {
        let mut layer = LayerWriter::new();
        layer.directory("tmp", 0o1777).unwrap();
        layer.symlink("c", "bin/a").unwrap();
        let bytes = layer.finish("test").unwrap().bytes;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let target = entry.link_name().unwrap().map(|name| name.display().to_string());
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), target)
        });
        let expected = [("tmp/".to_owned(), 0o1777, None), ("c".to_owned(), 0o777, Some("bin/a".to_owned()))];
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }
}
