//! Encryption at rest: which kinds are sealed on disk, with which keys. The file is upstream's `EncryptionConfiguration`
//! (apiserver.config.k8s.io/v1); the first start makes one that seals Secrets with a fresh AES-GCM key. To change a key, put a
//! new one first and restart: everything is written anew, and the old one can go.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isopod_store::Sealer;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::json;

/// Names of keys are stored with what they seal, after their length in one byte.
const NAME_BYTES_MAX: usize = 255;

/// Bytes of a key that is made here.
const KEY_BYTES: usize = 32;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<ResourceConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceConfiguration {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

/// One of a list: the first seals, all open.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Provider {
    Aesgcm { keys: Vec<NamedKey> },
    Identity {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    name: String,
    secret: String,
}

/// A new configuration: Secrets with a key of its own.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn fresh() -> Result<String, String> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key).map_err(|_| "the system gives no random bytes".to_owned())?;
    let keys = json!([{"name": "key1", "secret": STANDARD.encode(key)}]);
    let resources = json!([{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": keys}}, {"identity": {}}]}]);
    let document =
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources});
    serde_json::to_string_pretty(&document).map_err(|error| error.to_string())
}

/// Reads a configuration, YAML or JSON.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn parse(text: &str) -> Result<Arc<dyn Sealer>, String> {
    let found: Configuration = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if (found.api_version.as_str(), found.kind.as_str()) != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration") {
        return Err(format!(
            "apiVersion {:?} and kind {:?} are not those of an apiserver.config.k8s.io/v1 EncryptionConfiguration",
            found.api_version, found.kind
        ));
    }
    let rules = found.resources.into_iter().map(Rule::new).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Encryption { rules, random: SystemRandom::new() }))
}

struct Encryption {
    rules: Vec<Rule>,
    random: SystemRandom,
}

/// Some kinds and their keys.
struct Rule {
    resources: Vec<String>,
    /// Whether the first provider seals; with `identity` first, nothing new is sealed.
    seals: bool,
    keys: Vec<(String, LessSafeKey)>,
}

impl Rule {
    fn new(found: ResourceConfiguration) -> Result<Self, String> {
        if let Some(wrong) = found.resources.iter().find(|resource| resource.contains('*') && *resource != "*.*") {
            return Err(format!(
                "resources: {wrong:?} is not supported; name kinds such as secrets or jobs.batch, or *.*"
            ));
        }
        let seals = matches!(found.providers.first(), Some(Provider::Aesgcm { .. }));
        let mut keys = Vec::new();
        for provider in found.providers {
            let Provider::Aesgcm { keys: named } = provider else { continue };
            for key in named {
                keys.push((key.name.clone(), key.read()?));
            }
        }
        if seals && keys.is_empty() {
            return Err("providers: aesgcm has no keys".into());
        }
        Ok(Self { resources: found.resources, seals, keys })
    }

    fn covers(&self, resource: &str) -> bool {
        self.resources.iter().any(|covered| covered == resource || covered == "*.*")
    }
}

impl NamedKey {
    fn read(&self) -> Result<LessSafeKey, String> {
        let named = |why: String| format!("key {:?}: {why}", self.name);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(named(format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        let bytes = STANDARD.decode(self.secret.trim()).map_err(|error| named(format!("its secret: {error}")))?;
        let algorithm: &'static Algorithm = match bytes.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            length => return Err(named(format!("its secret has {length} bytes, not 16 or 32"))),
        };
        let key = UnboundKey::new(algorithm, &bytes).map_err(|_| named("its secret is no key".into()))?;
        Ok(LessSafeKey::new(key))
    }
}

/// What a value is bound to: moved to another key or revision, it does not open.
fn bound(key: &str, revision: u64) -> Vec<u8> {
    [&revision.to_le_bytes(), key.as_bytes()].concat()
}

impl Encryption {
    /// The rule of a key of the store, which begins with `PLURAL[.GROUP]/`. The first one that covers it counts.
    fn rule(&self, key: &str) -> Option<&Rule> {
        let resource = key.split('/').next().unwrap_or_default();
        self.rules.iter().find(|rule| rule.covers(resource))
    }
}

impl Sealer for Encryption {
    fn wants(&self, key: &str) -> bool {
        self.rule(key).is_some_and(|rule| rule.seals)
    }

    fn seal(&self, key: &str, revision: u64, value: &[u8], sealed: &mut Vec<u8>) -> bool {
        let Some((name, sealing)) = self.rule(key).filter(|rule| rule.seals).and_then(|rule| rule.keys.first()) else {
            return false;
        };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).expect("a system without randomness could not have started this server");
        let mut text = value.to_vec();
        let aad = Aad::from(bound(key, revision));
        sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .expect("a value is far shorter than the 64 GiB that AES-GCM seals at once");
        sealed.push(u8::try_from(name.len()).expect("names were checked when they were read"));
        sealed.extend_from_slice(name.as_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        true
    }

    fn open(&self, key: &str, revision: u64, sealed: &[u8]) -> Option<(Vec<u8>, bool)> {
        let (length, rest) = sealed.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        // A kind that is not covered any more may still have values that were sealed.
        let mut keys = self.rules.iter().flat_map(|rule| &rule.keys).filter(|(known, _)| known.as_bytes() == name);
        let value = keys.find_map(|(_, opening)| {
            let mut text = text.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let length = opening.open_in_place(nonce, Aad::from(bound(key, revision)), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        })?;
        let newest =
            self.rule(key).and_then(|rule| rule.keys.first()).is_some_and(|(newest, _)| newest.as_bytes() == name);
        Some((value, newest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(resources: &str, providers: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [{resources}]\n  \
             providers: [{providers}]\n"
        )
    }

    fn key(name: &str, byte: u8) -> String {
        format!("{{name: {name}, secret: {}}}", STANDARD.encode([byte; 32]))
    }

    fn aesgcm(keys: &[String]) -> String {
        format!("{{aesgcm: {{keys: [{}]}}}}", keys.join(", "))
    }

    #[test]
    fn values_open_only_where_they_were_sealed() {
        let sealer = parse(&fresh().unwrap()).unwrap();
        let mut sealed = Vec::new();
        assert!(sealer.seal("secrets/default/a", 7, b"value", &mut sealed));
        assert_eq!(sealer.open("secrets/default/a", 7, &sealed), Some((b"value".to_vec(), true)));
        assert_eq!(sealer.open("secrets/default/b", 7, &sealed), None);
        assert_eq!(sealer.open("secrets/default/a", 8, &sealed), None);
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert_eq!(sealer.open("secrets/default/a", 7, &sealed), None);
        assert!(!sealer.seal("configmaps/default/a", 7, b"value", &mut Vec::new()));
        for truncated in [&sealed[..0], &sealed[..3], &sealed[..10]] {
            assert_eq!(sealer.open("secrets/default/a", 7, truncated), None);
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let old = parse(&configuration("secrets, jobs.batch", &aesgcm(&[key("one", 1)]))).unwrap();
        let both = parse(&configuration("secrets", &aesgcm(&[key("two", 2), key("one", 1)]))).unwrap();
        let off =
            parse(&configuration("secrets", &format!("{{identity: {{}}}}, {}", aesgcm(&[key("one", 1)])))).unwrap();
        let mut sealed = Vec::new();
        assert!(old.seal("jobs.batch/x/y", 1, b"v", &mut sealed));
        sealed.clear();
        old.seal("secrets/x/y", 1, b"v", &mut sealed);
        assert_eq!(both.open("secrets/x/y", 1, &sealed), Some((b"v".to_vec(), false)));
        assert!(both.wants("secrets/x/y") && !both.wants("jobs.batch/x/y"));
        // With `identity` first, what was sealed still opens, and is to be written as it is.
        assert!(!off.wants("secrets/x/y"));
        assert_eq!(off.open("secrets/x/y", 1, &sealed).map(|(value, _)| value), Some(b"v".to_vec()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("{".to_owned(), ""),
            (configuration("secrets", "{secretbox: {keys: []}}"), "secretbox"),
            (configuration("secrets", &aesgcm(&[])), "no keys"),
            (configuration("secrets", "{aesgcm: {keys: [{name: a, secret: AAAA}]}}"), "3 bytes"),
            (configuration("secrets", "{aesgcm: {keys: [{name: a, secret: '?'}]}}"), "\"a\""),
            (configuration("'*.apps'", &aesgcm(&[key("a", 1)])), "*.apps"),
            (configuration("secrets", "").replace("EncryptionConfiguration", "Pod"), "Pod"),
        ] {
            let error = parse(&text).err().unwrap_or_else(|| panic!("accepted: {text}"));
            assert!(error.contains(expected), "{error}");
        }
    }
}
