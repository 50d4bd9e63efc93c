//! LZ4's legacy stream, as the kernel's `lz4 -l` writes it: a magic, then blocks of at most 8 MiB behind their length.
//! Only what is needed to unpack one kernel image; never writes LZ4.

/// First bytes of a legacy stream.
pub(super) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Unpacks a stream of at most `limit` bytes. Ends at the first thing that is not a block.
pub(super) fn decode(stream: &[u8], limit: usize) -> Result<Vec<u8>, &'static str> {
    let mut rest = stream.strip_prefix(&MAGIC).ok_or("no LZ4 legacy magic")?;
    let mut output = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        // The kernel appends its unpacked size after the last block; it is no block's length.
        let Some((block, after)) = after.split_at_checked(length).filter(|_| length > 0) else { break };
        decode_block(block, &mut output, limit)?;
        rest = after;
    }
    if output.is_empty() { Err("no LZ4 block") } else { Ok(output) }
}

fn decode_block(mut block: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<(), &'static str> {
    let start = output.len();
    while let Some((&token, rest)) = block.split_first() {
        let (literals, rest) = length(token >> 4, rest)?;
        let (literal, rest) = rest.split_at_checked(literals).ok_or("literal beyond the block")?;
        output.extend_from_slice(literal);
        if rest.is_empty() {
            break;
        }
        let (offset, rest) = rest.split_first_chunk::<2>().ok_or("no match offset")?;
        let (matched, rest) = length(token & 15, rest)?;
        copy_match(output, start, u16::from_le_bytes(*offset).into(), matched + 4)?;
        if output.len() > limit {
            return Err("larger than a kernel can be");
        }
        block = rest;
    }
    Ok(())
}

/// A length of four bits, continued in bytes while they are 255.
fn length(nibble: u8, mut rest: &[u8]) -> Result<(usize, &[u8]), &'static str> {
    let mut total = usize::from(nibble);
    if nibble == 15 {
        loop {
            let (&more, after) = rest.split_first().ok_or("length beyond the block")?;
            total += usize::from(more);
            rest = after;
            if more != 255 {
                break;
            }
        }
    }
    Ok((total, rest))
}

/// Repeats `length` bytes from `offset` back, which may overlap what is being written.
fn copy_match(output: &mut Vec<u8>, start: usize, offset: usize, length: usize) -> Result<(), &'static str> {
    if offset == 0 || offset > output.len() - start {
        return Err("match before the block");
    }
    let from = output.len() - offset;
    let mut left = length;
    while left > 0 {
        let piece = left.min(output.len() - from);
        output.extend_from_within(from..from + piece);
        left -= piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(blocks: &[&[u8]]) -> Vec<u8> {
        let mut stream = MAGIC.to_vec();
        for block in blocks {
            stream.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            stream.extend(*block);
        }
        stream
    }

    #[test]
    fn blocks_unpack_to_what_the_format_says() {
        let long: Vec<u8> = [&[0xf0, 5][..], &[b'x'; 20]].concat();
        let table: &[(&[&[u8]], &[u8])] = &[
            (&[b"\x30abc"], b"abc"),
            // Match of four, three back: overlaps itself.
            (&[b"\x30abc\x03\x00\x10z"], b"abcabcaz"),
            // Match of 4 + 15 + 1.
            (&[b"\x1fa\x01\x00\x01\x10b"], b"aaaaaaaaaaaaaaaaaaaaab"),
            (&[b"\x30abc", b"\x30def"], b"abcdef"),
            (&[&long], b"xxxxxxxxxxxxxxxxxxxx"),
        ];
        for (blocks, expected) in table {
            assert_eq!(decode(&stream(blocks), 1000).as_deref(), Ok(*expected), "{blocks:?}");
        }
    }

    #[test]
    fn damaged_streams_are_refused() {
        for bytes in
            [&b""[..], b"\x02\x21\x4c\x18", &stream(&[b"\x10a\x05\x00"]), &stream(&[b"\xf0"]), &stream(&[b"\x50ab"])]
        {
            assert!(decode(bytes, 1000).is_err(), "{bytes:?}");
        }
        assert!(decode(&stream(&[b"\x1fa\x01\x00\xff\xff\xff\xff\xff\x00\x00"]), 1000).is_err());
    }
}
