//! Service account tokens (facts, section 1.14): signed with the cluster's own ES256 key, bound to an account and
//! possibly to a pod, secret or node, and checked against the store each time they are shown.

mod secrets;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isopod_planner::admission::Operation;
use isopod_schema::{FieldError, Status};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::admission::Asked;
use crate::codec;
use crate::config::{Config, OpenError};
use crate::context::{Context, WriteOptions};
use crate::pki::Pki;
use crate::respond::{self, Response};
use crate::server::ApiServer;
use crate::strategy::{self, meta, text, time_text};
use crate::user::{UserInfo, service_account_parts};

pub(crate) use secrets::fill;

/// Group of the kinds that are about tokens.
const GROUP: &str = "authentication.k8s.io";
const LIFE_SECONDS_DEFAULT: i64 = 3_600;
const LIFE_SECONDS_MIN: i64 = 600;
const LIFE_SECONDS_MAX: i64 = 1 << 32;
/// A pod that is being deleted may use its token for so long.
const DELETED_POD_SECONDS: i64 = 60;

/// Signs and checks tokens.
pub(crate) struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    key_id: String,
    issuer: String,
    point: (String, String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

impl Tokens {
    pub(crate) fn new(pki: &Pki, config: &Config) -> Result<Self, OpenError> {
        let unusable = |why: String| OpenError::Certificate { path: "sa.key".into(), why };
        let key = KeyPair::from_pem(&pki.token_key_pem).map_err(|error| unusable(error.to_string()))?;
        let signing =
            EncodingKey::from_ec_pem(pki.token_key_pem.as_bytes()).map_err(|error| unusable(error.to_string()))?;
        // An uncompressed point: 4, then the two coordinates of 32 bytes.
        let raw = key.der_bytes();
        let [4, coordinates @ ..] = raw else { return Err(unusable("it is no P-256 key".into())) };
        let Some((x, y)) = coordinates.split_at_checked(32).filter(|(_, y)| y.len() == 32) else {
            return Err(unusable("it is no P-256 key".into()));
        };
        let point = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let verifying =
            DecodingKey::from_ec_components(&point.0, &point.1).map_err(|error| unusable(error.to_string()))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(raw));
        Ok(Self { signing, verifying, key_id, issuer: config.issuer.clone(), point })
    }

    pub(crate) fn jwks(&self) -> Value {
        let (x, y) = &self.point;
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256", "x": x, "y": y}]})
    }

    pub(crate) fn openid_configuration(&self) -> Value {
        json!({
            "issuer": self.issuer, "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// A token for an account, bound to nothing else.
    ///
    /// # Errors
    /// 404 when there is no such account.
    pub(crate) fn for_account(
        &self,
        server: &ApiServer,
        namespace: &str,
        name: &str,
        seconds: i64,
    ) -> Result<String, Status> {
        let missing = || Status::new(isopod_schema::Reason::NotFound, format!("serviceaccounts {name:?} not found"));
        let account = reference(server, "serviceaccounts", namespace, name).ok_or_else(missing)?;
        let bound = Bound { namespace: namespace.into(), serviceaccount: account, ..Bound::default() };
        self.sign(server, bound, vec![self.issuer.clone()], seconds).map(|(token, _)| token)
    }

    fn sign(&self, server: &ApiServer, bound: Bound, aud: Vec<String>, seconds: i64) -> Result<(String, i64), Status> {
        let now = server.config.clock.now().as_second();
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name),
            aud,
            exp: now + seconds,
            iat: now,
            nbf: now,
            jti: uuid::Uuid::new_v4().to_string(),
            bound,
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).map_err(Status::internal)?;
        Ok((token, claims.exp))
    }

    /// Who shows this token, and for which of the audiences asked for (by default the server's own) it is good.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(crate) fn check(
        &self,
        server: &ApiServer,
        token: &str,
        audiences: &[&str],
    ) -> Result<(UserInfo, Vec<String>), String> {
        let claims = self.claims(server, token)?;
        let own = [self.issuer.as_str()];
        let wanted = if audiences.is_empty() { &own } else { audiences };
        let shared: Vec<String> = claims.aud.iter().filter(|aud| wanted.contains(&aud.as_str())).cloned().collect();
        if shared.is_empty() {
            return Err(format!("token audiences {:?} is invalid for the target audiences {wanted:?}", claims.aud));
        }
        let (namespace, name) = service_account_parts(&claims.sub).ok_or("the subject is no service account")?;
        still_there(server, namespace, &claims.bound)?;
        let mut user = UserInfo::service_account(namespace, name, &claims.bound.serviceaccount.uid);
        user.extra = extra(&claims);
        Ok((user, shared))
    }

    /// The audiences asked for that are the server's own; without any, all of these.
    ///
    /// # Errors
    /// When none is.
    pub(crate) fn own_audiences(&self, asked: &[&str]) -> Result<Vec<String>, String> {
        match asked.is_empty() || asked.contains(&self.issuer.as_str()) {
            true => Ok(vec![self.issuer.clone()]),
            false => Err(format!("the token is not for any of the target audiences {asked:?}")),
        }
    }

    /// Signature and times; the server's clock decides, not the system's.
    fn claims(&self, server: &ApiServer, token: &str) -> Result<Claims, String> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation);
        let claims = decoded.map_err(|error| error.to_string())?.claims;
        let now = server.config.clock.now().as_second();
        if claims.exp <= now || claims.nbf > now + 1 {
            return Err("service account token has expired".into());
        }
        Ok(claims)
    }
}

fn extra(claims: &Claims) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    let mut set = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    set("credential-id", format!("JTI={}", claims.jti));
    for (kind, reference) in [("pod", &claims.bound.pod), ("node", &claims.bound.node)] {
        if let Some(reference) = reference {
            set(&format!("{kind}-name"), reference.name.clone());
            set(&format!("{kind}-uid"), reference.uid.clone());
        }
    }
    extra
}

fn stored(server: &ApiServer, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    let key =
        if namespace.is_empty() { format!("{resource}/{name}") } else { format!("{resource}/{namespace}/{name}") };
    codec::decode(&server.store.get(&key)?.value).ok()
}

fn reference(server: &ApiServer, resource: &str, namespace: &str, name: &str) -> Option<Reference> {
    let object = stored(server, resource, namespace, name)?;
    Some(Reference { name: name.into(), uid: meta(&object, "uid").into() })
}

/// The account and what the token is bound to exist, unreplaced.
fn still_there(server: &ApiServer, namespace: &str, bound: &Bound) -> Result<(), String> {
    let checks = [
        ("serviceaccounts", namespace, Some(&bound.serviceaccount)),
        ("pods", namespace, bound.pod.as_ref()),
        ("secrets", namespace, bound.secret.as_ref()),
        ("nodes", "", bound.node.as_ref().filter(|_| bound.pod.is_none())),
    ];
    for (resource, namespace, reference) in checks {
        let Some(reference) = reference else { continue };
        let found = stored(server, resource, namespace, &reference.name);
        let object = found.filter(|object| meta(object, "uid") == reference.uid);
        let object = object.ok_or_else(|| format!("{resource} {:?} of the token is gone", reference.name))?;
        if resource == "pods" && has_been_deleted(server, &object) {
            return Err(format!("pod {:?} of the token is gone", reference.name));
        }
    }
    Ok(())
}

fn has_been_deleted(server: &ApiServer, pod: &Value) -> bool {
    let deleted = meta(pod, "deletionTimestamp").parse::<jiff::Timestamp>();
    deleted.is_ok_and(|deleted| server.config.clock.now().as_second() - deleted.as_second() > DELETED_POD_SECONDS)
}

/// POST serviceaccounts/NAME/token.
pub(crate) async fn answer(context: &Context<'_>, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(context)?;
    let mut request = context.decode_other("authentication.k8s.io/v1", "TokenRequest", body)?;
    with_life(&mut request);
    let asked = Asked::new(context, Operation::Create, &request, None, options.dry_run);
    let mut request = asked.mutate_body(request).await?;
    let server = &context.server;
    complete(context, &mut request)?;
    let spec = &request["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(LIFE_SECONDS_DEFAULT);
    check_life(context, seconds)?;
    asked.consult(&request).await?;
    let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let bound = bound(context, &request)?;
    let (token, expires) = server.tokens.sign(server, bound, audiences.map(str::to_owned).collect(), seconds)?;
    let expires = time_text(jiff::Timestamp::from_second(expires).map_err(Status::internal)?);
    let token = if options.dry_run { String::new() } else { token };
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(respond::document(201, &request, &context.shape.output))
}

/// The default of the kind; webhooks see it.
fn with_life(request: &mut Value) {
    if request["spec"]["expirationSeconds"].is_null() {
        request["spec"]["expirationSeconds"] = LIFE_SECONDS_DEFAULT.into();
    }
}

/// What the request leaves open follows from the account that is named by the path; what it says must be true of it.
///
/// # Errors
/// 404 without the account, 409 when another of its name is meant, 422 when one of another name is.
fn complete(context: &Context<'_>, request: &mut Value) -> Result<(), Status> {
    let (namespace, name) = (context.namespace(), context.info.name.as_str());
    for (field, expected) in [("name", name), ("namespace", namespace)] {
        let given = meta(request, field);
        if !given.is_empty() && given != expected {
            let detail = format!("must match the service account {field} if specified");
            let error = FieldError::invalid(format!("metadata.{field}"), given, detail);
            return Err(Status::invalid_kind(GROUP, "TokenRequest", name, &[error]));
        }
    }
    let account = codec::decode(&context.entry(name)?.value)?;
    let (given, uid) = (meta(request, "uid"), meta(&account, "uid"));
    if !given.is_empty() && given != uid {
        let why =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        return Err(Status::conflict(context.kind, name, &why));
    }
    let metadata = strategy::metadata(request);
    metadata.insert("name".into(), name.into());
    metadata.insert("namespace".into(), namespace.into());
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), time_text(context.now).into());
    if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
        request["spec"]["audiences"] = json!([context.server.tokens.issuer]);
    }
    if let Some(request) = request.as_object_mut() {
        request.shift_remove("status");
    }
    Ok(())
}

fn check_life(context: &Context<'_>, seconds: i64) -> Result<(), Status> {
    let detail = match seconds {
        ..LIFE_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        seconds if seconds > LIFE_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
    Err(Status::invalid(context.kind, &context.info.name, &[error]))
}

/// The account that a completed request is about, and the object that it binds the token to.
///
/// # Errors
/// 400, 404, 409.
fn bound(context: &Context<'_>, request: &Value) -> Result<Bound, Status> {
    let mut bound = Bound {
        namespace: context.namespace().into(),
        serviceaccount: Reference { name: meta(request, "name").into(), uid: meta(request, "uid").into() },
        ..Bound::default()
    };
    match &request["spec"]["boundObjectRef"] {
        wanted if wanted.is_object() => bind(context, &mut bound, wanted).map(|()| bound),
        _ => Ok(bound),
    }
}

/// Binds the token to the object that the request names.
fn bind(context: &Context<'_>, bound: &mut Bound, wanted: &Value) -> Result<(), Status> {
    let (kind, name, uid) = (text(wanted, &["kind"]), text(wanted, &["name"]), text(wanted, &["uid"]));
    let (resource, namespace) = match kind {
        "Pod" => ("pods", context.namespace()),
        "Secret" => ("secrets", context.namespace()),
        "Node" => ("nodes", ""),
        other => return Err(Status::bad_request(format!("cannot bind token to object of kind {other:?}"))),
    };
    let found = stored(&context.server, resource, namespace, name);
    let missing = || Status::new(isopod_schema::Reason::NotFound, format!("{resource} {name:?} not found"));
    let object = found.ok_or_else(missing)?;
    let actual = meta(&object, "uid");
    if !uid.is_empty() && uid != actual {
        let text = format!("the UID in the bound object reference ({uid}) does not match the UID in record ({actual})");
        return Err(Status::conflict(context.kind, &context.info.name, &text));
    }
    if kind == "Pod" && text(&object, &["spec", "serviceAccountName"]) != context.info.name {
        let text = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            context.info.name
        );
        return Err(Status::bad_request(text));
    }
    let reference = Some(Reference { name: name.into(), uid: actual.into() });
    match kind {
        "Pod" => {
            let node = text(&object, &["spec", "nodeName"]);
            bound.node = (!node.is_empty()).then(|| {
                self::reference(&context.server, "nodes", "", node)
                    .unwrap_or(Reference { name: node.into(), uid: String::new() })
            });
            bound.pod = reference;
        }
        "Secret" => bound.secret = reference,
        _ => bound.node = reference,
    }
    Ok(())
}
