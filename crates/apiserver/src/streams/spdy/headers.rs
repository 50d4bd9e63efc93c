//! SPDY/3 header blocks: names and values, compressed with one zlib context per direction that starts from a
//! dictionary both sides know. Pure; sizes are limited because the peer chooses the compressed bytes.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Largest decompressed block in bytes.
const BLOCK_BYTES_MAX: usize = 64 << 10;
const PAIRS_MAX: u32 = 256;

/// Names of a block, lower case, with their values.
pub(crate) type Headers = BTreeMap<String, String>;

/// Words of the dictionary that are stored with their length before them.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200+OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// The rest of the dictionary.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of SPDY/3: 1,423 bytes.
fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_423);
    for word in WORDS.split_whitespace() {
        let word = word.replace('+', " ");
        bytes.put_u32(word.len() as u32);
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(TAIL.as_bytes());
    bytes
}

/// A header block that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("a header block does not decompress: {0}")]
    Zlib(String),
    #[error("a header block is larger than {BLOCK_BYTES_MAX} bytes")]
    TooLarge,
    #[error("a header block is cut short")]
    Short,
}

/// One direction, receiving.
pub(crate) struct Reader(Decompress);

impl Reader {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// # Errors
    /// [`HeaderError`]; the context is of no more use then.
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        parse(Bytes::from(self.decompress(block)?))
    }

    fn decompress(&mut self, block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut plain = Vec::with_capacity(4 << 10);
        let mut rest = block;
        loop {
            let before = self.0.total_in();
            let step = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            rest = &rest[usize::try_from(self.0.total_in() - before).unwrap_or(rest.len()).min(rest.len())..];
            match step {
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(_) if rest.is_empty() && plain.len() < plain.capacity() => return Ok(plain),
                Ok(_) if plain.len() >= BLOCK_BYTES_MAX => return Err(HeaderError::TooLarge),
                Ok(_) => plain.reserve(4 << 10),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|error| HeaderError::Zlib(error.to_string()))?;
                }
                Err(error) => return Err(HeaderError::Zlib(error.to_string())),
            }
        }
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, HeaderError> {
    let count = plain.try_get_u32().map_err(|_| HeaderError::Short)?;
    if count > PAIRS_MAX {
        return Err(HeaderError::TooLarge);
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut plain)?.to_lowercase();
        headers.insert(name, text(&mut plain)?);
    }
    Ok(headers)
}

fn text(plain: &mut Bytes) -> Result<String, HeaderError> {
    let length = plain.try_get_u32().map_err(|_| HeaderError::Short)? as usize;
    if length > plain.len() {
        return Err(HeaderError::Short);
    }
    Ok(String::from_utf8_lossy(&plain.split_to(length)).into_owned())
}

/// One direction, sending.
pub(crate) struct Writer(Compress);

impl Writer {
    /// # Errors
    /// When the dictionary cannot be set.
    pub(crate) fn new() -> Result<Self, HeaderError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&dictionary()).map_err(|error| HeaderError::Zlib(error.to_string()))?;
        Ok(Self(compress))
    }

    /// # Errors
    /// When zlib fails.
    pub(crate) fn write(&mut self, headers: &Headers) -> Result<Bytes, HeaderError> {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        // A block never grows by more than this when it does not compress.
        let mut block = Vec::with_capacity(plain.len() + 1_024);
        let done = self.0.compress_vec(&plain, &mut block, FlushCompress::Sync);
        done.map_err(|error| HeaderError::Zlib(error.to_string()))?;
        Ok(block.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The checksum by which zlib names a dictionary.
    fn adler32(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (a + b) % 65_521)
        });
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        assert_eq!((dictionary().len(), adler32(&dictionary())), (1_423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_share_a_context_in_order() {
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::new());
        for round in 0..50 {
            let headers: Headers =
                [("streamtype", "data".to_owned()), ("port", "80".into()), ("requestid", round.to_string())]
                    .map(|(name, value)| (name.to_owned(), value))
                    .into();
            let block = writer.write(&headers).unwrap();
            assert_eq!(reader.read(&block).unwrap(), headers);
        }
        assert_eq!(reader.read(&writer.write(&Headers::new()).unwrap()).unwrap(), Headers::new());
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut writer = Writer::new().unwrap();
        let headers: Headers = [("x".to_owned(), "a".repeat(1 << 20))].into();
        let block = writer.write(&headers).unwrap();
        assert!(block.len() < 64 << 10, "{}", block.len());
        assert_eq!(Reader::new().read(&block), Err(HeaderError::TooLarge));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(plain in prop::collection::vec(any::<u8>(), 0..100), raw in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(Bytes::from(plain));
            let _ = Reader::new().read(&raw);
        }
    }
}
