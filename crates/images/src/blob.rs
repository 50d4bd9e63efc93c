//! A part of a file, read from its beginning: a layer or document inside an archive or a download.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Bytes `offset..offset + length` of a file. Clones read independently.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl Blob {
    pub(crate) fn new(file: Arc<File>, offset: u64, length: u64) -> Self {
        Self { file, offset, length }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// A part of this part.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> Self {
        let start = offset.min(self.length);
        Self { file: self.file.clone(), offset: self.offset + start, length: length.min(self.length - start) }
    }

    /// The whole content, which may have at most `limit` bytes.
    pub(crate) fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.length > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} bytes, the limit is {limit}", self.length),
            ));
        }
        let mut content = Vec::with_capacity(usize::try_from(self.length).unwrap_or(0));
        self.clone().read_to_end(&mut content)?;
        Ok(content)
    }

    /// `sha256:...` of the content.
    pub(crate) fn digest(&self) -> io::Result<String> {
        let mut hash = Hashing::new(io::sink());
        io::copy(&mut self.clone(), &mut hash)?;
        Ok(hash.digest())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.length).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        self.length -= count as u64;
        Ok(count)
    }
}

/// A writer that digests what passes through it.
pub(crate) struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: io::Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// `sha256:...` of everything written.
    pub(crate) fn digest(self) -> String {
        format!("sha256:{}", hex(&self.hash.finalize()))
    }
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `sha256:...` of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}
