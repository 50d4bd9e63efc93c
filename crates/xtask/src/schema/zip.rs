//! Reads one member of a zip file (a Python wheel). Knows stored and deflated members, nothing else.

use std::io::Read;

use anyhow::{Context, Result, bail};

const CENTRAL_MAGIC: &[u8] = b"PK\x01\x02";
const CENTRAL_LENGTH: usize = 46;
const LOCAL_LENGTH: usize = 30;
const STORED: usize = 0;
const DEFLATED: usize = 8;

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

/// The bytes of the member called `name`.
pub fn extract(archive: &[u8], name: &str) -> Result<Vec<u8>> {
    let (method, compressed, offset) = find(archive, name).with_context(|| format!("{name} is not in the archive"))?;
    let data = member(archive, compressed, offset).context("the archive is cut off")?;
    match method {
        STORED => Ok(data.to_vec()),
        DEFLATED => {
            let mut bytes = Vec::new();
            flate2::read::DeflateDecoder::new(data).read_to_end(&mut bytes).context("inflate")?;
            Ok(bytes)
        }
        other => bail!("{name}: compression method {other} is not supported"),
    }
}

/// Method, compressed size and offset of the local header, from the central directory.
fn find(archive: &[u8], name: &str) -> Option<(usize, usize, usize)> {
    let end = archive.windows(4).rposition(|window| window == b"PK\x05\x06")?;
    let mut at = u32_at(archive, end + 16)?;
    while archive.get(at..at + 4)? == CENTRAL_MAGIC {
        let length = u16_at(archive, at + 28)?;
        if archive.get(at + CENTRAL_LENGTH..at + CENTRAL_LENGTH + length)? == name.as_bytes() {
            return Some((u16_at(archive, at + 10)?, u32_at(archive, at + 20)?, u32_at(archive, at + 42)?));
        }
        at += CENTRAL_LENGTH + length + u16_at(archive, at + 30)? + u16_at(archive, at + 32)?;
    }
    None
}

fn member(archive: &[u8], compressed: usize, offset: usize) -> Option<&[u8]> {
    let start = offset + LOCAL_LENGTH + u16_at(archive, offset + 26)? + u16_at(archive, offset + 28)?;
    archive.get(start..start + compressed)
}
