//! Cuts the uncompressed kernel (an ELF file that QEMU enters through PVH) out of a boot image, following the x86 boot
//! protocol: set-up sectors, payload offset and payload length stand in the header.

use super::lz4;

/// Largest unpacked kernel in bytes that is accepted.
const LIMIT_BYTES: usize = 256 << 20;

/// A boot image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not an x86 boot image.
    #[error("not an x86 boot image: {0}")]
    NotBootImage(&'static str),
    /// Compressed in a way that is not supported.
    #[error(
        "the kernel is compressed with {0}, which is not supported\nhint: use Debian's linux-image-cloud package (LZ4 or zstd)"
    )]
    Compression(&'static str),
    /// The compressed part is damaged.
    #[error("the kernel's compressed part is damaged: {0}")]
    Damaged(String),
}

/// The uncompressed kernel in a boot image.
///
/// # Errors
/// `ImageError`.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>, ImageError> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let payload = payload(image)?;
    let kernel = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => unpack_zstd(payload)?,
        _ if payload.starts_with(&lz4::MAGIC) => {
            lz4::decode(payload, LIMIT_BYTES).map_err(|reason| ImageError::Damaged(reason.into()))?
        }
        [0x1f, 0x8b, ..] => return Err(ImageError::Compression("gzip")),
        [0xfd, b'7', b'z', ..] => return Err(ImageError::Compression("xz")),
        _ => return Err(ImageError::Compression("an unknown method")),
    };
    if kernel.starts_with(b"\x7fELF") {
        Ok(kernel)
    } else {
        Err(ImageError::Damaged("what is in it is not an ELF file".into()))
    }
}

/// The compressed kernel in a boot image (Documentation/arch/x86/boot.rst, protocol 2.08 and later).
fn payload(image: &[u8]) -> Result<&[u8], ImageError> {
    let cut = ImageError::NotBootImage("it ends within its header");
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(ImageError::NotBootImage("it has no HdrS signature"));
    }
    let (Some(&sectors), Some(offset), Some(length)) = (image.get(0x1f1), word(image, 0x248), word(image, 0x24c))
    else {
        return Err(cut);
    };
    let start = (usize::from(if sectors == 0 { 4 } else { sectors }) + 1) * 512 + offset;
    // The last four bytes of the payload are its unpacked size.
    image.get(start..start + length.saturating_sub(4)).ok_or(cut)
}

fn word(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at + 4)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

fn unpack_zstd(payload: &[u8]) -> Result<Vec<u8>, ImageError> {
    use std::io::Read;
    let mut kernel = Vec::new();
    zstd::stream::read::Decoder::with_buffer(payload)
        .and_then(|decoder| decoder.single_frame().take(LIMIT_BYTES as u64).read_to_end(&mut kernel))
        .map_err(|error| ImageError::Damaged(error.to_string()))?;
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot image with one set-up sector, whose payload starts 16 bytes into the protected-mode part.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 16];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len() + 4).unwrap().to_le_bytes());
        image.extend(payload);
        image.extend([0; 4]);
        image
    }

    #[test]
    fn kernels_are_cut_out_of_boot_images() {
        let elf = b"\x7fELFkernel".to_vec();
        let packed = zstd::encode_all(&elf[..], 1).unwrap();
        let mut legacy = lz4::MAGIC.to_vec();
        legacy.extend([11, 0, 0, 0, 0xa0]);
        legacy.extend(&elf);
        for whole in [elf.clone(), image(&packed), image(&legacy)] {
            assert_eq!(vmlinux(&whole).unwrap(), elf);
        }
    }

    #[test]
    fn other_files_are_refused_by_name() {
        for (bytes, text) in [
            (b"MZ".to_vec(), "no HdrS"),
            (image(b"\x1f\x8b\x08"), "gzip"),
            (image(b"\xfd7zXZ"), "xz"),
            (image(b"????"), "unknown"),
            (image(&zstd::encode_all(&b"text"[..], 1).unwrap()), "not an ELF"),
            (image(b"")[..0x204].to_vec(), "no HdrS"),
        ] {
            let error = vmlinux(&bytes).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
