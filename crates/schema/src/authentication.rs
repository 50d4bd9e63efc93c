//! Tokens of others: an AuthenticationConfiguration (apiserver.config.k8s.io/v1), and what its rules and expressions make
//! of the claims of a token whose signature somebody else has checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::admission::{Expression, Scope};
use crate::cel::{Cel, Type, to_document};

const VERSION: &str = "apiserver.config.k8s.io/v1";
/// What expressions may speak of.
const CLAIMS: [&str; 1] = ["claims"];
const USER: [&str; 1] = ["user"];
const ISSUERS_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<JwtFile>,
    anonymous: Option<Anonymous>,
}

/// Who may ask without saying who he is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

impl Anonymous {
    /// The path may be asked for by anybody; what he may there is another question.
    pub fn allows(&self, path: &str) -> bool {
        self.enabled && (self.conditions.is_empty() || self.conditions.iter().any(|condition| condition.path == path))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JwtFile {
    issuer: IssuerFile,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerFile {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    #[serde(default)]
    certificate_authority: String,
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimRule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mappings {
    username: Mapping,
    #[serde(default)]
    groups: Mapping,
    #[serde(default)]
    uid: Mapping,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    key: String,
    value_expression: String,
}

/// Who issues tokens, and where his keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// As tokens name it.
    pub url: String,
    /// Where its discovery document is.
    pub discovery_url: String,
    /// What it is trusted by, in PEM; empty: the system's authorities.
    pub certificate_authority: String,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
}

/// Where a value comes from.
#[derive(Debug)]
enum Source {
    Nothing,
    Claim { name: String, prefix: String },
    Expression(Expression),
}

#[derive(Debug)]
enum Demand {
    Equal { claim: String, value: String },
    Expression { rule: Expression, message: String },
}

/// How tokens of one issuer become users.
#[derive(Debug)]
pub struct Jwt {
    /// The issuer.
    pub issuer: Issuer,
    demands: Vec<Demand>,
    username: Source,
    groups: Source,
    uid: Source,
    extra: Vec<(String, Expression)>,
    user_rules: Vec<(Expression, String)>,
}

/// A whole configuration.
#[derive(Debug, Default)]
pub struct Authentication {
    /// Issuers, each once.
    pub jwt: Vec<Jwt>,
    /// Who may ask without saying who he is; none: anybody.
    pub anonymous: Option<Anonymous>,
}

/// Whom a token is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub name: String,
    /// Unique id, if there is one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else is said of the user.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Authentication {
    /// From YAML or JSON. `own` is the issuer of the cluster's own tokens, whom nobody else may be.
    ///
    /// # Errors
    /// What is wrong with it, by path.
    pub fn parse(text: &str, own: &str) -> Result<Self, String> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if file.api_version != VERSION || file.kind != "AuthenticationConfiguration" {
            let (version, kind) = (&file.api_version, &file.kind);
            return Err(format!("it is a {kind:?} of {version:?}, not an AuthenticationConfiguration of {VERSION}"));
        }
        if file.jwt.len() > ISSUERS_MAX {
            return Err(format!("jwt: may have {ISSUERS_MAX} items at most"));
        }
        let mut jwt: Vec<Jwt> = Vec::new();
        for (at, item) in file.jwt.into_iter().enumerate() {
            let read = Jwt::read(item).map_err(|why| format!("jwt[{at}].{why}"))?;
            if read.issuer.url == own || jwt.iter().any(|known| known.issuer.url == read.issuer.url) {
                return Err(format!("jwt[{at}].issuer.url: {:?} issues other tokens already", read.issuer.url));
            }
            jwt.push(read);
        }
        let conditions = file.anonymous.iter().flat_map(|anonymous| &anonymous.conditions);
        if let Some(condition) = conditions.into_iter().find(|condition| !condition.path.starts_with('/')) {
            return Err(format!("anonymous.conditions: {:?} must begin with /", condition.path));
        }
        Ok(Self { jwt, anonymous: file.anonymous })
    }

    /// The issuer that a token names.
    pub fn issuer(&self, url: &str) -> Option<(usize, &Jwt)> {
        self.jwt.iter().enumerate().find(|(_, jwt)| jwt.issuer.url == url)
    }
}

fn url(text: &str, path: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").ok_or_else(|| format!("{path}: {text:?} must begin with https://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    match host.is_empty() || host.contains('@') || text.contains(['?', '#']) {
        true => Err(format!("{path}: {text:?} must have a host, and no user, query or fragment")),
        false => Ok(()),
    }
}

fn compile(text: &str, names: &[&str], wanted: &Type<'_>, path: &str) -> Result<Expression, String> {
    Expression::compile(text, names, wanted).map_err(|why| format!("{path}: {why}"))
}

impl Issuer {
    fn read(file: IssuerFile) -> Result<Self, String> {
        url(&file.url, "issuer.url")?;
        if let Some(other) = &file.discovery_url {
            url(other, "issuer.discoveryURL")?;
        }
        if file.audiences.is_empty() || file.audiences.iter().any(String::is_empty) {
            return Err("issuer.audiences: at least one is required, and none may be empty".into());
        }
        match (file.audiences.len(), file.audience_match_policy.as_str()) {
            (1, "") | (_, "MatchAny") => {}
            _ => return Err("issuer.audienceMatchPolicy: must be MatchAny for multiple audiences".into()),
        }
        let well_known = || format!("{}/.well-known/openid-configuration", file.url.trim_end_matches('/'));
        Ok(Self {
            discovery_url: file.discovery_url.clone().unwrap_or_else(well_known),
            url: file.url,
            certificate_authority: file.certificate_authority,
            audiences: file.audiences,
        })
    }
}

impl Source {
    fn read(mapping: Mapping, path: &str, wants_prefix: bool) -> Result<Self, String> {
        match (mapping.claim.as_str(), mapping.expression.as_str()) {
            ("", "") if mapping.prefix.is_none() => Ok(Self::Nothing),
            ("", "") => Err(format!("{path}.prefix: needs a claim")),
            ("", text) if mapping.prefix.is_none() => {
                compile(text, &CLAIMS, &Type::Dyn, &format!("{path}.expression")).map(Self::Expression)
            }
            ("", _) => Err(format!("{path}: expression and prefix may not both be given")),
            (_, "") if wants_prefix && mapping.prefix.is_none() => {
                Err(format!("{path}.prefix: is required when claim is set; it may be \"\""))
            }
            (_, "") => Ok(Self::Claim { name: mapping.claim, prefix: mapping.prefix.unwrap_or_default() }),
            _ => Err(format!("{path}: claim and expression may not both be given")),
        }
    }

    /// Texts; none where the claim is not there.
    fn texts(&self, claims: &Value) -> Result<Option<Vec<String>>, String> {
        match self {
            Self::Nothing => Ok(None),
            Self::Claim { name, prefix } => {
                let found = claims.get(name).map(|value| texts(value, name)).transpose()?;
                Ok(found.map(|texts| texts.into_iter().map(|text| format!("{prefix}{text}")).collect()))
            }
            Self::Expression(expression) => made(expression, claims).map(Some),
        }
    }
}

fn texts(value: &Value, what: &str) -> Result<Vec<String>, String> {
    let bad = || format!("{what}: is neither a text nor a list of texts");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(bad)).collect(),
        _ => Err(bad()),
    }
}

fn made(expression: &Expression, claims: &Value) -> Result<Vec<String>, String> {
    let documents = [("claims", claims)];
    let mut scope = Scope::new(&documents);
    let value = scope.evaluate(expression).map_err(|error| format!("expression '{}': {error}", expression.text))?;
    texts(&to_document(&value)?, &format!("expression '{}'", expression.text))
}

fn holds(rule: &Expression, name: &'static str, document: &Value, message: &str) -> Result<(), String> {
    let documents = [(name, document)];
    let mut scope = Scope::new(&documents);
    match scope.evaluate(rule) {
        Ok(Cel::Bool(true)) => Ok(()),
        Ok(_) if message.is_empty() => Err(format!("validation expression '{}' failed", rule.text)),
        Ok(_) => Err(message.to_owned()),
        Err(error) => Err(format!("expression '{}': {error}", rule.text)),
    }
}

impl Jwt {
    fn read(file: JwtFile) -> Result<Self, String> {
        let mappings = file.claim_mappings;
        let username = Source::read(mappings.username, "claimMappings.username", true)?;
        if matches!(username, Source::Nothing) {
            return Err("claimMappings.username: claim or expression is required".into());
        }
        let demand = |(at, rule): (usize, ClaimRule)| {
            let path = format!("claimValidationRules[{at}]");
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (false, true) => Ok(Demand::Equal { claim: rule.claim, value: rule.required_value }),
                (true, false) => {
                    let compiled = compile(&rule.expression, &CLAIMS, &Type::Bool, &format!("{path}.expression"))?;
                    Ok(Demand::Expression { rule: compiled, message: rule.message })
                }
                _ => Err(format!("{path}: exactly one of claim and expression is required")),
            }
        };
        let extra = mappings.extra.into_iter().enumerate().map(|(at, extra)| {
            let path = format!("claimMappings.extra[{at}]");
            if extra.key != extra.key.to_lowercase() || !extra.key.contains('/') {
                return Err(format!("{path}.key: {:?} must be a lower-case path with a domain", extra.key));
            }
            let value = compile(&extra.value_expression, &CLAIMS, &Type::Dyn, &format!("{path}.valueExpression"))?;
            Ok((extra.key, value))
        });
        let user_rules = file.user_validation_rules.into_iter().enumerate().map(|(at, rule)| {
            let path = format!("userValidationRules[{at}].expression");
            Ok((compile(&rule.expression, &USER, &Type::Bool, &path)?, rule.message))
        });
        Ok(Self {
            issuer: Issuer::read(file.issuer)?,
            demands: file.claim_validation_rules.into_iter().enumerate().map(demand).collect::<Result<_, String>>()?,
            username,
            groups: Source::read(mappings.groups, "claimMappings.groups", true)?,
            uid: Source::read(mappings.uid, "claimMappings.uid", false)?,
            extra: extra.collect::<Result<_, String>>()?,
            user_rules: user_rules.collect::<Result<_, String>>()?,
        })
    }

    /// Whom the claims of a token are about. Its signature, times and issuer are good already.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn identity(&self, claims: &Value) -> Result<Identity, String> {
        let audiences = texts(&claims["aud"], "aud")?;
        if !audiences.iter().any(|audience| self.issuer.audiences.contains(audience)) {
            return Err(format!("expected audience in {:?}, got {audiences:?}", self.issuer.audiences));
        }
        for demand in &self.demands {
            match demand {
                Demand::Equal { claim, value } if claims[claim] == value.as_str() => {}
                Demand::Equal { claim, .. } => return Err(format!("the claim {claim:?} has not the required value")),
                Demand::Expression { rule, message } => holds(rule, "claims", claims, message)?,
            }
        }
        let identity = self.mapped(claims)?;
        let user = serde_json::json!({
            "username": identity.name, "uid": identity.uid, "groups": identity.groups, "extra": identity.extra,
        });
        self.user_rules.iter().try_for_each(|(rule, message)| holds(rule, "user", &user, message))?;
        Ok(identity)
    }

    fn mapped(&self, claims: &Value) -> Result<Identity, String> {
        // An address that nobody has verified is anybody's.
        let by_address = matches!(&self.username, Source::Claim { name, .. } if name == "email");
        if by_address && claims.get("email_verified").is_some_and(|verified| *verified != true) {
            return Err("email not verified".into());
        }
        let name = match self.username.texts(claims)?.as_deref() {
            Some([name]) if !name.is_empty() => name.clone(),
            _ => return Err("the token names no user".into()),
        };
        let uid = self.uid.texts(claims)?.unwrap_or_default().into_iter().next().unwrap_or_default();
        let groups = self.groups.texts(claims)?.unwrap_or_default();
        let groups = groups.into_iter().filter(|group| !group.is_empty()).collect();
        let mut extra = BTreeMap::new();
        for (key, expression) in &self.extra {
            let values: Vec<String> = made(expression, claims)?.into_iter().filter(|text| !text.is_empty()).collect();
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(Identity { name, uid, groups, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    fn configured(jwt: &Value) -> Result<Authentication, String> {
        let file = json!({"apiVersion": VERSION, "kind": "AuthenticationConfiguration", "jwt": [jwt]});
        Authentication::parse(&file.to_string(), "https://own")
    }

    fn jwt(change: impl FnOnce(&mut Value)) -> Value {
        let mut jwt = json!({
            "issuer": {"url": "https://issuer.example.com", "audiences": ["kubernetes"]},
            "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}},
        });
        change(&mut jwt);
        jwt
    }

    #[test]
    fn claims_become_users() {
        let claims = json!({
            "iss": "https://issuer.example.com", "aud": ["kubernetes", "other"], "sub": "jane", "groups": ["a", "b"],
            "email": "jane@example.com", "email_verified": true, "tenant": {"id": "t1"}, "hd": "example.com",
        });
        let check = |change: &dyn Fn(&mut Value), claims: &Value, expected: Result<&str, &str>| {
            let configuration = configured(&jwt(change)).unwrap();
            let shown = configuration.jwt[0]
                .identity(claims)
                .map(|user| format!("{} {} {} {}", user.name, user.uid, user.groups.join(","), json!(user.extra)));
            match (expected, &shown) {
                (Ok(expected), Ok(found)) => assert_eq!(expected, found),
                (Err(part), Err(why)) => assert!(why.contains(part), "{why}"),
                _ => panic!("{expected:?}: {shown:?}"),
            }
        };
        check(&|_| {}, &claims, Ok("oidc:jane   {}"));
        let full = |jwt: &mut Value| {
            jwt["claimMappings"] = json!({
                "username": {"expression": "claims.email.split('@')[0] + ':ext'"}, "groups": {"claim": "groups", "prefix": "g:"},
                "uid": {"claim": "sub"}, "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant.id"}],
            });
        };
        check(&full, &claims, Ok("jane:ext jane g:a,g:b {\"example.com/tenant\":[\"t1\"]}"));
        let address = |jwt: &mut Value| jwt["claimMappings"]["username"] = json!({"claim": "email", "prefix": ""});
        check(&address, &claims, Ok("jane@example.com   {}"));
        let mut unverified = claims.clone();
        unverified["email_verified"] = false.into();
        check(&address, &unverified, Err("email not verified"));
        let mut elsewhere = claims.clone();
        elsewhere["aud"] = "other".into();
        check(&|_| {}, &elsewhere, Err("expected audience in [\"kubernetes\"], got [\"other\"]"));
        let rules = |jwt: &mut Value| {
            jwt["claimValidationRules"] = json!([
                {"claim": "hd", "requiredValue": "example.com"},
                {"expression": "claims.tenant.id == 't1'", "message": "wrong tenant"},
            ]);
            jwt["userValidationRules"] =
                json!([{"expression": "!user.username.startsWith('system:')", "message": "reserved"}]);
        };
        check(&rules, &claims, Ok("oidc:jane   {}"));
        let mut other = claims.clone();
        other["tenant"]["id"] = "t2".into();
        check(&rules, &other, Err("wrong tenant"));
        other["hd"] = "example.org".into();
        check(&rules, &other, Err("\"hd\" has not the required value"));
        let root = |jwt: &mut Value| {
            rules(jwt);
            jwt["claimMappings"]["username"]["prefix"] = "system:".into();
        };
        check(&root, &claims, Err("reserved"));
        check(&|jwt| jwt["claimMappings"]["username"]["claim"] = "groups".into(), &claims, Err("names no user"));
        check(
            &|jwt| jwt["claimMappings"]["username"] = json!({"expression": "claims.nothing"}),
            &claims,
            Err("no such key"),
        );
    }

    #[test]
    fn what_is_no_configuration_is_refused_by_path() {
        type Change = &'static dyn Fn(&mut Value);
        let table: [(Change, &str); 12] = [
            (
                &|jwt| jwt["issuer"]["url"] = "http://x".into(),
                "jwt[0].issuer.url: \"http://x\" must begin with https://",
            ),
            (&|jwt| jwt["issuer"]["url"] = "https://a@b".into(), "no user, query or fragment"),
            (&|jwt| jwt["issuer"]["url"] = "https://own".into(), "issues other tokens already"),
            (&|jwt| jwt["issuer"]["audiences"] = json!([]), "issuer.audiences: at least one is required"),
            (&|jwt| jwt["issuer"]["audiences"] = json!(["a", "b"]), "must be MatchAny for multiple audiences"),
            (&|jwt| jwt["issuer"]["color"] = "red".into(), "color"),
            (
                &|jwt| jwt["claimMappings"]["username"] = json!({"claim": "sub"}),
                "claimMappings.username.prefix: is required",
            ),
            (
                &|jwt| jwt["claimMappings"]["username"] = json!({}),
                "claimMappings.username: claim or expression is required",
            ),
            (
                &|jwt| jwt["claimMappings"]["groups"] = json!({"claim": "a", "prefix": "", "expression": "b"}),
                "may not both be given",
            ),
            (
                &|jwt| jwt["claimMappings"]["uid"] = json!({"expression": "claims."}),
                "claimMappings.uid.expression: compilation failed",
            ),
            (
                &|jwt| jwt["claimMappings"]["extra"] = json!([{"key": "A", "valueExpression": "'x'"}]),
                "must be a lower-case path",
            ),
            (
                &|jwt| jwt["userValidationRules"] = json!([{"expression": "claims.x == 1"}]),
                "undeclared reference to 'claims'",
            ),
        ];
        for (change, part) in table {
            let why = configured(&jwt(change)).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        for (text, part) in [("kind: X\napiVersion: v1", "not an AuthenticationConfiguration"), ("[]", "")] {
            assert!(Authentication::parse(text, "").unwrap_err().contains(part));
        }
        let some = format!("{HEAD}anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}");
        let anonymous = Authentication::parse(&some, "").unwrap().anonymous.unwrap();
        assert_eq!((anonymous.allows("/livez"), anonymous.allows("/version")), (true, false));
    }
}
