//! What a pod's volumes hold.

use std::collections::BTreeSet;

use isopod_types::pod::{
    ConfigMapSource, Container, DownwardItem, EnvVarSource, KeyToPath, Pod, ProjectedSource, SecretSource, TokenSource,
    Volume,
};

use serde_json::Value;

use crate::environment::{ConfigProblem, Place, Sources, config_map, field_value, resource_value, secret};

/// Lifetime of a projected token that states none, in seconds.
const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// Permission bits of files that state none.
const DEFAULT_MODE: u32 = 0o644;

/// A volume with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeContent {
    /// Name.
    pub name: String,
    /// Content.
    pub source: Content,
}

/// Content of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An empty directory.
    Empty {
        /// On tmpfs.
        memory: bool,
        /// Most bytes; 0: no limit.
        size_limit_bytes: u64,
    },
    /// Files.
    Files(Vec<File>),
    /// A path of the node.
    HostPath {
        /// Absolute path.
        path: String,
        /// `hostPath.type`.
        kind: String,
    },
    /// The disk of a claim.
    Claim {
        /// Name of the claim.
        name: String,
        /// Mounted read-only.
        read_only: bool,
    },
}

/// A file in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// Path in the volume.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Names of the objects that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Tokens by audience and lifetime in seconds.
    pub tokens: BTreeSet<(String, i64)>,
}

fn token_key(source: &TokenSource) -> (String, i64) {
    (source.audience.clone(), source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS))
}

impl References {
    /// Everything that the pod's containers and volumes refer to.
    pub fn of(pod: &Pod) -> Self {
        let mut references = Self::of_volumes(pod);
        pod.spec.all_containers().for_each(|container| references.add_container(container));
        references
    }

    /// What the pod's volumes refer to.
    pub fn of_volumes(pod: &Pod) -> Self {
        let mut references = Self::default();
        pod.spec.volumes.iter().for_each(|volume| references.add_volume(volume));
        references
    }

    fn add_container(&mut self, container: &Container) {
        for from in &container.env_from {
            self.config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
            self.secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
        }
        let sources = container.env.iter().filter_map(|variable| variable.value_from.as_ref());
        for EnvVarSource { config_map_key_ref, secret_key_ref, .. } in sources {
            self.config_maps.extend(config_map_key_ref.iter().map(|r| r.name.clone()));
            self.secrets.extend(secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }

    fn add_volume(&mut self, volume: &Volume) {
        self.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        self.secrets.extend(volume.secret.iter().map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| &projected.sources) {
            self.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            self.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
            self.tokens.extend(source.service_account_token.iter().map(token_key));
        }
    }
}

/// The content of all volumes of a pod.
pub fn contents(pod: &Pod, sources: &Sources, place: &Place) -> Result<Vec<VolumeContent>, ConfigProblem> {
    let view = View { pod, sources, place };
    pod.spec.volumes.iter().map(|volume| view.content(volume)).collect()
}

/// Whether a volume holds files that follow what they are of.
pub fn is_of_files(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The files of each volume that holds some, by its name.
pub fn files<'a>(
    pod: &'a Pod,
    sources: &'a Sources,
    place: &'a Place,
) -> impl Iterator<Item = (&'a str, Result<Vec<File>, ConfigProblem>)> {
    let view = View { pod, sources, place };
    let volumes = pod.spec.volumes.iter().filter(|volume| is_of_files(volume));
    volumes.map(move |volume| {
        let files = view.content(volume).map(|content| match content.source {
            Content::Files(files) => files,
            _ => Vec::new(),
        });
        (volume.name.as_str(), files)
    })
}

struct View<'a> {
    pod: &'a Pod,
    sources: &'a Sources,
    place: &'a Place,
}

impl View<'_> {
    fn content(&self, volume: &Volume) -> Result<VolumeContent, ConfigProblem> {
        let source = self.source(volume).map_err(|problem| {
            ConfigProblem(format!("MountVolume.SetUp failed for volume {:?}: {}", volume.name, problem.0))
        })?;
        Ok(VolumeContent { name: volume.name.clone(), source })
    }

    fn source(&self, volume: &Volume) -> Result<Content, ConfigProblem> {
        if let Some(source) = &volume.config_map {
            return self.config_map_files(source, DEFAULT_MODE).map(Content::Files);
        }
        if let Some(source) = &volume.secret {
            return self.secret_files(source, &source.secret_name, DEFAULT_MODE).map(Content::Files);
        }
        if let Some(source) = &volume.downward_api {
            return self.downward_files(&source.items, source.default_mode.unwrap_or(DEFAULT_MODE)).map(Content::Files);
        }
        if let Some(projected) = &volume.projected {
            let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
            let parts: Result<Vec<_>, _> =
                projected.sources.iter().map(|source| self.projected(source, mode)).collect();
            return Ok(Content::Files(parts?.concat()));
        }
        if let Some((kind, source)) = volume.other.iter().next().filter(|_| volume.empty_dir.is_none()) {
            return self.other(volume, kind, source);
        }
        let directory = volume.empty_dir.clone().unwrap_or_default();
        let limit = directory.size_limit.unwrap_or_default().units_ceil();
        let size_limit_bytes = u64::try_from(limit).unwrap_or(0);
        Ok(Content::Empty { memory: directory.medium == "Memory", size_limit_bytes })
    }

    fn other(&self, volume: &Volume, kind: &str, source: &Value) -> Result<Content, ConfigProblem> {
        let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
        match kind {
            "hostPath" => Ok(Content::HostPath { path: text("path"), kind: text("type") }),
            "persistentVolumeClaim" => {
                Ok(Content::Claim { name: text("claimName"), read_only: source["readOnly"] == true })
            }
            "ephemeral" => {
                let name = format!("{}-{}", self.pod.metadata.name, volume.name);
                Ok(Content::Claim { name, read_only: false })
            }
            _ => Err(ConfigProblem(format!("volumes of type {kind} are not supported; use a persistentVolumeClaim"))),
        }
    }

    fn projected(&self, source: &ProjectedSource, mode: u32) -> Result<Vec<File>, ConfigProblem> {
        let mut files = Vec::new();
        if let Some(source) = &source.config_map {
            files.extend(self.config_map_files(source, mode)?);
        }
        if let Some(source) = &source.secret {
            files.extend(self.secret_files(source, &source.name, mode)?);
        }
        if let Some(source) = &source.downward_api {
            files.extend(self.downward_files(&source.items, mode)?);
        }
        if let Some(source) = &source.service_account_token {
            let token = self.sources.tokens.get(&token_key(source));
            let token = token.ok_or_else(|| ConfigProblem("no service account token was issued".into()))?;
            files.push(File { path: source.path.clone(), content: token.clone().into_bytes(), mode });
        }
        Ok(files)
    }

    fn config_map_files(&self, source: &ConfigMapSource, mode: u32) -> Result<Vec<File>, ConfigProblem> {
        let mode = source.default_mode.unwrap_or(mode);
        let Some(map) = config_map(self.sources, &source.name, source.optional)? else { return Ok(Vec::new()) };
        let mut entries: Vec<(String, Vec<u8>)> =
            map.data.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect();
        let binary = map.binary_data.iter().map(|(key, value)| (key.clone(), decode_base64(value).unwrap_or_default()));
        entries.extend(binary);
        select(entries, &source.items, mode, source.optional, &source.name)
    }

    fn secret_files(&self, source: &SecretSource, name: &str, mode: u32) -> Result<Vec<File>, ConfigProblem> {
        let mode = source.default_mode.unwrap_or(mode);
        let Some(secret) = secret(self.sources, name, source.optional)? else { return Ok(Vec::new()) };
        let entries = secret.data.iter().map(|(key, value)| (key.clone(), decode_base64(value).unwrap_or_default()));
        select(entries.collect(), &source.items, mode, source.optional, name)
    }

    fn downward_files(&self, items: &[DownwardItem], mode: u32) -> Result<Vec<File>, ConfigProblem> {
        let file = |item: &DownwardItem| {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => field_value(self.pod, field, self.place)?,
                (None, Some(resource)) => resource_value(self.pod, None, resource, self.place)?,
                (None, None) => return Err(ConfigProblem(format!("downward API item {:?} names no field", item.path))),
            };
            Ok(File { path: item.path.clone(), content: text.into_bytes(), mode: item.mode.unwrap_or(mode) })
        };
        items.iter().map(file).collect()
    }
}

/// All entries under their keys, or the chosen ones under their paths.
fn select(
    entries: Vec<(String, Vec<u8>)>,
    items: &[KeyToPath],
    mode: u32,
    optional: bool,
    object: &str,
) -> Result<Vec<File>, ConfigProblem> {
    if items.is_empty() {
        return Ok(entries.into_iter().map(|(path, content)| File { path, content, mode }).collect());
    }
    let mut files = Vec::new();
    for item in items {
        match entries.iter().find(|(key, _)| *key == item.key) {
            Some((_, content)) => {
                let mode = item.mode.unwrap_or(mode);
                files.push(File { path: item.path.clone(), content: content.clone(), mode });
            }
            None if optional => {}
            None => return Err(ConfigProblem(format!("references non-existent key {:?} of {object:?}", item.key))),
        }
    }
    Ok(files)
}

/// Decodes standard base64, ignoring line ends; nothing when it is not base64.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut out, mut buffer, mut bits) = (Vec::with_capacity(text.len() * 3 / 4), 0u32, 0);
    for byte in text.trim_end_matches('=').bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        buffer = buffer << 6 | u32::from(value(byte)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(buffer >> bits & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn resolve(volume: Value) -> Result<Content, String> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "x"}, "spec": {"volumes": [volume], "containers": [{"name": "c"}]},
        }))
        .unwrap();
        let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}});
        let sources = Sources {
            config_maps: [("m".to_owned(), Some(serde_json::from_value(map).unwrap()))].into(),
            secrets: [("s".to_owned(), Some(serde_json::from_value(json!({"data": {"p": "cA=="}})).unwrap()))].into(),
            tokens: [((String::new(), 3607), "jwt".to_owned())].into(),
            ..Sources::default()
        };
        let contents = contents(&pod, &sources, &Place::default()).map_err(|e| e.0)?;
        Ok(contents[0].source.clone())
    }

    fn check_files(volume: Value, expected: &[(&str, &[u8], u32)]) {
        let Content::Files(files) = resolve(volume).unwrap() else { panic!() };
        let found: Vec<(&str, &[u8], u32)> =
            files.iter().map(|f| (f.path.as_str(), f.content.as_slice(), f.mode)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn volumes_hold_what_their_sources_say() {
        check_files(
            json!({"configMap": {"name": "m"}}),
            &[("a", b"1", 0o644), ("b", b"2", 0o644), ("c", &[0, 1], 0o644)],
        );
        check_files(
            json!({"configMap": {"name": "m", "defaultMode": 0o400, "items": [{"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 0o777}]}}),
            &[("x/y", b"1", 0o400), ("z", b"2", 0o777)],
        );
        check_files(json!({"secret": {"secretName": "s"}}), &[("p", b"p", 0o644)]);
        check_files(json!({"configMap": {"name": "gone", "optional": true}}), &[]);
        check_files(
            json!({"projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ]}}),
            &[("token", b"jwt", 0o644), ("namespace", b"x", 0o644)],
        );
        assert_eq!(
            resolve(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})).unwrap(),
            Content::Empty { memory: true, size_limit_bytes: 1 << 20 }
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (volume, text) in [
            (json!({"configMap": {"name": "gone"}}), "volume \"v\": configmap \"gone\" not found"),
            (json!({"configMap": {"name": "m", "items": [{"key": "no", "path": "p"}]}}), "non-existent key \"no\""),
            (json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}), "no service account token"),
        ] {
            let error = resolve(volume).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn base64() {
        for (text, expected) in
            [("", Some(&b""[..])), ("aGk=", Some(b"hi")), ("aGk", Some(b"hi")), ("a\nGk=", Some(b"hi")), ("a*", None)]
        {
            assert_eq!(decode_base64(text).as_deref(), expected);
        }
    }

    #[test]
    fn references_are_found_everywhere() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"envFrom": [{"configMapRef": {"name": "a"}}], "env": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "t"}}]}}],
        }}))
        .unwrap();
        let references = References::of(&pod);
        assert_eq!(references.config_maps.into_iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(references.secrets.into_iter().collect::<Vec<_>>(), ["b"]);
        assert_eq!(references.tokens.len(), 1);
    }
}
