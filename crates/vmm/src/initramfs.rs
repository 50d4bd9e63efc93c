//! The initial RAM file system: the guest agent as `/init`, the kernel modules as `/modules/NN-NAME.ko` in loading order.
//! A cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed:
//! unpacking would cost the guest more than the bytes do. The same input gives the same bytes, so it can be hashed.

use crate::kernel::Module;

/// An archive of the agent and the modules.
#[must_use]
pub fn build(agent: &[u8], modules: &[Module]) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "modules"] {
        archive.entry(directory, 0o040_755, &[]);
    }
    archive.entry("init", 0o100_755, agent);
    for (position, module) in modules.iter().enumerate() {
        archive.entry(&format!("modules/{position:02}-{}.ko", module.name), 0o100_644, &module.content);
    }
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: usize,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: usize, content: &[u8]) {
        self.inode += 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_what_was_written() {
        let modules = [Module { name: "virtio".into(), content: b"abc".to_vec() }];
        let archive = build(b"agent", &modules);
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(archive, build(b"agent", &modules));
        let dir = tempfile::tempdir().unwrap();
        let mut child = match Command::new("busybox")
            .args(["cpio", "-i", "-d"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                eprintln!("SKIPPED: busybox is not installed: {error}");
                return;
            }
        };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &archive).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("init")).unwrap(), b"agent");
        assert_eq!(std::fs::read(dir.path().join("modules/00-virtio.ko")).unwrap(), b"abc");
    }
}
