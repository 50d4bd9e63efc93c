//! Version 2 of OpenAPI with what extensions say: of each the last good document, cut down to its own group version. Joined
//! when somebody asks, and kept until something in it changes.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::header::ETAG;
use isopod_schema::openapi::{self, Document};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::routes::{Extension, Routes};
use crate::customs::Served;
use crate::server::ApiServer;

/// What is joined of all extensions together, in bytes as they came.
const ALL_BYTES: usize = 32 << 20;

/// What an extension says of its group version.
pub(crate) struct Part {
    tag: String,
    digest: [u8; 32],
    value: Value,
    bytes: usize,
}

/// Both forms of the document.
#[derive(Clone)]
pub(crate) struct Whole {
    pub(crate) json: Document,
    pub(crate) protobuf: Document,
}

struct Kept {
    served: Weak<Served>,
    parts: Vec<Arc<Part>>,
    whole: Whole,
}

/// The joined document of now.
#[derive(Default)]
pub(crate) struct Joined(Mutex<Option<Kept>>);

impl Joined {
    /// The whole document; none where no extension says anything.
    pub(crate) fn of(&self, served: &Arc<Served>, routes: &Routes) -> Option<Whole> {
        let parts = parts(routes);
        if parts.is_empty() {
            return None;
        }
        // Held while it is made: nobody gains by making the same beside it.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |kept: &&Kept| {
            let same = kept.parts.len() == parts.len() && kept.parts.iter().zip(&parts).all(|(a, b)| Arc::ptr_eq(a, b));
            same && std::ptr::eq(kept.served.as_ptr(), Arc::as_ptr(served))
        };
        if let Some(kept) = kept.as_ref().filter(is_same) {
            return Some(kept.whole.clone());
        }
        let (json, protobuf) = served.documents.v2_with(parts.iter().map(|part| &part.value));
        let whole = Whole { json, protobuf };
        *kept = Some(Kept { served: Arc::downgrade(served), parts, whole: whole.clone() });
        Some(whole)
    }
}

fn parts(routes: &Routes) -> Vec<Arc<Part>> {
    let mut left_bytes = ALL_BYTES;
    let fits = |part: &&Arc<Part>| {
        left_bytes = left_bytes.saturating_sub(part.bytes);
        left_bytes > 0
    };
    routes.all().filter_map(|extension| extension.openapi_v2.as_ref()).filter(fits).cloned().collect()
}

/// Asks an extension for its document, and keeps the one that is known when there is no better.
pub(super) async fn learn(server: &Arc<ApiServer>, extension: &mut Extension) {
    let known = extension.openapi_v2.as_ref();
    let tag = known.map_or("", |part| &part.tag);
    let found = super::fetch(server, extension, "/openapi/v2", "application/json", tag).await;
    let (headers, bytes) = match found {
        Ok((200, headers, bytes)) => (headers, bytes),
        Ok((404, ..)) => return extension.openapi_v2 = None,
        Ok((304, ..)) => return,
        Ok((code, ..)) => return tracing::debug!(extension.name, code, "an extension's OpenAPI is not to be had"),
        Err(error) => return tracing::debug!(extension.name, error, "an extension's OpenAPI is not to be had"),
    };
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    if known.is_some_and(|part| part.digest == digest) {
        return;
    }
    let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    let prefix = format!("/apis/{}/{}/", extension.group, extension.version);
    let read = tokio::task::spawn_blocking(move || {
        let document: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        Ok::<_, String>(Part { tag, digest, value: openapi::part(&document, &prefix), bytes: bytes.len() })
    });
    match read.await.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(part) => extension.openapi_v2 = Some(Arc::new(part)),
        Err(error) => tracing::warn!(extension.name, error, "an extension's OpenAPI is no JSON"),
    }
}
