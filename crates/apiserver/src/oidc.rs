//! Tokens that others issue: the keys of their issuers are fetched when a token needs them, kept, and asked for again only
//! so often, whatever tokens come. What the claims mean is `isopod_schema::authentication`'s.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isopod_schema::authentication::{Authentication, Issuer};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use crate::admission::call::Client;
use crate::admission::places;
use crate::config::OpenError;
use crate::server::ApiServer;
use crate::user::UserInfo;

/// Longest time for each of an issuer's two documents.
const FETCH: Duration = Duration::from_secs(10);
/// Keys are asked for again after this long, and for an unknown key no sooner than after that long.
const FRESH: Duration = Duration::from_secs(3_600);
const PAUSE: Duration = Duration::from_secs(10);
const KEYS_MAX: usize = 64;
const TOKEN_BYTES: usize = 64 << 10;
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
];

/// The file of a state directory that says whose tokens are believed.
const FILE: &str = "authentication.yaml";

/// All issuers that are believed besides the cluster itself.
#[derive(Default)]
pub(crate) struct Oidc {
    configuration: Authentication,
    keys: Vec<Keys>,
}

struct Keys {
    client: Client,
    known: Mutex<Known>,
    /// Held while the keys are fetched.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Vec<(Option<String>, Arc<DecodingKey>)>,
    asked: Option<Instant>,
}

impl Oidc {
    /// # Errors
    /// A file that cannot be read or says what does not exist.
    pub(crate) fn open(path: Option<PathBuf>, own_issuer: &str) -> Result<Self, OpenError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let unusable = |why: String| OpenError::Authentication { path: path.clone(), why };
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(error.to_string()))?;
        let configuration = Authentication::parse(&text, own_issuer).map_err(unusable)?;
        let keys = configuration.jwt.iter().map(|jwt| Keys::new(&jwt.issuer)).collect();
        Ok(Self { configuration, keys })
    }

    /// What a state directory says, if it does.
    pub(crate) fn file_of(directory: &Path) -> Option<PathBuf> {
        Some(directory.join(FILE)).filter(|path| path.exists())
    }

    /// Who gives no credentials may ask for this path.
    pub(crate) fn allows_anonymous(&self, path: &str) -> bool {
        self.configuration.anonymous.as_ref().is_none_or(|anonymous| anonymous.allows(path))
    }

    /// Whom a token is for; none when no issuer of these has issued it.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) async fn check(&self, server: &ApiServer, token: &str) -> Result<Option<UserInfo>, String> {
        if self.keys.is_empty() || token.len() > TOKEN_BYTES {
            return Ok(None);
        }
        let Some(issuer) = claimed_issuer(token) else { return Ok(None) };
        let Some((at, jwt)) = self.configuration.issuer(&issuer) else { return Ok(None) };
        let claims = self.keys[at].claims(&jwt.issuer, token).await?;
        check_times(&claims, server.config.clock.now().as_second())?;
        let found = jwt.identity(&claims)?;
        let user = UserInfo::new(found.name, found.groups);
        Ok(Some(UserInfo { uid: found.uid, extra: found.extra, ..user }))
    }
}

/// The issuer that a token names, which says nothing yet.
fn claimed_issuer(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    Some(claims["iss"].as_str()?.to_owned())
}

fn check_times(claims: &Value, now: i64) -> Result<(), String> {
    let time = |name: &str| claims[name].as_f64().map(|seconds| seconds as i64);
    if time("exp").ok_or("the token has no end")? <= now {
        return Err("oidc: token is expired".into());
    }
    match time("nbf") {
        Some(begin) if begin > now + 60 => Err("oidc: token is not valid yet".into()),
        _ => Ok(()),
    }
}

impl Keys {
    fn new(issuer: &Issuer) -> Self {
        let client = Client::new(issuer.certificate_authority.as_bytes());
        Self { client, known: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The claims of a token whose signature is good.
    async fn claims(&self, issuer: &Issuer, token: &str) -> Result<Value, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("oidc: tokens signed with {:?} are not accepted", header.alg));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&issuer.url]);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let mut last = "oidc: no key of the issuer fits the token".to_owned();
        for key in self.candidates(issuer, header.kid.as_deref()).await? {
            match jsonwebtoken::decode::<Value>(token, &key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => last = format!("oidc: {error}"),
            }
        }
        Err(last)
    }

    /// Keys that may have signed.
    async fn candidates(&self, issuer: &Issuer, id: Option<&str>) -> Result<Vec<Arc<DecodingKey>>, String> {
        if let Some(found) = self.fitting(id, FRESH) {
            return Ok(found);
        }
        let _turn = self.turn.lock().await;
        // Somebody else may have fetched them meanwhile; and who asks for what does not exist waits.
        if let Some(found) = self.fitting(id, FRESH) {
            return Ok(found);
        }
        let is_paused = self.lock().asked.is_some_and(|asked| asked.elapsed() < PAUSE);
        if !is_paused {
            let fetched = self.fetch(issuer).await;
            let mut known = self.lock();
            known.asked = Some(Instant::now());
            match fetched {
                Ok(keys) => known.keys = keys,
                Err(why) => tracing::warn!(issuer = issuer.url, why, "the keys of an issuer could not be fetched"),
            }
        }
        // Old keys are better than none.
        self.fitting(id, Duration::MAX).ok_or_else(|| format!("oidc: the issuer {:?} has no such key", issuer.url))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fitting(&self, id: Option<&str>, age: Duration) -> Option<Vec<Arc<DecodingKey>>> {
        let known = self.lock();
        known.asked.filter(|asked| asked.elapsed() < age)?;
        let fits = |(own, _): &&(Option<String>, Arc<DecodingKey>)| {
            id.is_none() || own.as_deref().is_none_or(|own| Some(own) == id)
        };
        let found: Vec<_> = known.keys.iter().filter(fits).map(|(_, key)| Arc::clone(key)).collect();
        (!found.is_empty()).then_some(found)
    }

    async fn fetch(&self, issuer: &Issuer) -> Result<Vec<(Option<String>, Arc<DecodingKey>)>, String> {
        let document = self.client.get(&places::of_url(&issuer.discovery_url)?, FETCH).await?;
        let document: Value = serde_json::from_slice(&document).map_err(|error| error.to_string())?;
        if document["issuer"] != issuer.url.as_str() {
            return Err(format!("the discovery document is of {}, not of {:?}", document["issuer"], issuer.url));
        }
        let place = document["jwks_uri"].as_str().filter(|url| url.starts_with("https://"));
        let place = places::of_url(place.ok_or("the discovery document names no jwks_uri with https")?)?;
        let keys: JwkSet =
            serde_json::from_slice(&self.client.get(&place, FETCH).await?).map_err(|error| error.to_string())?;
        let signs = |key: &&Jwk| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
        let made = keys
            .keys
            .iter()
            .filter(signs)
            .take(KEYS_MAX)
            .filter_map(|key| Some((key.common.key_id.clone(), Arc::new(DecodingKey::from_jwk(key).ok()?))));
        Ok(made.collect())
    }
}

/// Parsers of tokens that nobody has vouched for yet, for a fuzz target.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{Value, check_times, claimed_issuer};

    /// Reads a text as a token, and a document as its claims.
    pub fn token(text: &str, claims: &[u8]) {
        claimed_issuer(text);
        drop(jsonwebtoken::decode_header(text));
        drop(serde_json::from_slice::<jsonwebtoken::jwk::JwkSet>(claims));
        if let Ok(claims) = serde_json::from_slice::<Value>(claims) {
            drop(check_times(&claims, 1_767_225_600));
        }
    }
}
