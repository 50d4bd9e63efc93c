//! An image as the archive that `docker save` writes: a configuration, layers, and `manifest.json` that names both.

use anyhow::Result;
use serde_json::{Value, json};

use super::layer::{Layer, LayerWriter, digest};

/// When every image was made, as far as its configuration says.
const CREATED: &str = "2024-01-01T00:00:00Z";

/// An image.
pub struct Image {
    /// Full names, such as `docker.io/library/busybox:latest`.
    pub tags: Vec<String>,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// `config` of the image configuration: `Cmd`, `Env`, ...
    pub config: Value,
}

impl Image {
    fn configuration(&self) -> Value {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", digest(&layer.bytes))).collect();
        let history = self.layers.iter().map(|layer| json!({"created": CREATED, "created_by": layer.created_by}));
        json!({
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history.collect::<Vec<_>>(),
        })
    }

    /// The archive's bytes.
    pub fn to_docker_archive(&self) -> Result<Vec<u8>> {
        let mut archive = LayerWriter::new();
        let mut paths = Vec::new();
        for layer in &self.layers {
            let name = digest(&layer.bytes);
            archive.directory(&name, 0o755)?;
            let path = format!("{name}/layer.tar");
            archive.file(&path, 0o644, &layer.bytes)?;
            paths.push(path);
        }
        let configuration = self.configuration().to_string().into_bytes();
        let name = format!("{}.json", digest(&configuration));
        archive.file(&name, 0o644, &configuration)?;
        let manifest = json!([{"Config": name, "RepoTags": self.tags, "Layers": paths}]);
        archive.file("manifest.json", 0o644, manifest.to_string().as_bytes())?;
        Ok(archive.finish("")?.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    #[test]
    fn names_are_digests_of_what_they_name() {
        let mut layer = LayerWriter::new();
        layer.file("a", 0o644, b"a").unwrap();
        let layers = vec![layer.finish("test").unwrap()];
        let image = Image { tags: vec!["example.org/a:1".into()], layers, config: json!({"Cmd": ["sh"]}) };
        let bytes = image.to_docker_archive().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let config = manifest[0]["Config"].as_str().unwrap();
        let layer = manifest[0]["Layers"][0].as_str().unwrap();
        assert_eq!(config, format!("{}.json", digest(&files[config])));
        assert_eq!(layer, format!("{}/layer.tar", digest(&files[layer])));
        let config: Value = serde_json::from_slice(&files[config]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&files[layer])));
        assert_eq!(manifest[0]["RepoTags"], json!(["example.org/a:1"]));
    }
}
