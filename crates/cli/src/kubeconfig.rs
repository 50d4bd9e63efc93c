//! The user's kubeconfig: a cluster's entries put in and taken out, everything else left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

/// The file that kubectl reads: the first of `$KUBECONFIG`, or `~/.kube/config`.
pub(crate) fn user_file() -> PathBuf {
    let named = std::env::var("KUBECONFIG").ok();
    let first = named.as_deref().and_then(|list| list.split(':').find(|path| !path.is_empty()));
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    first.map_or_else(|| Path::new(&home).join(".kube/config"), PathBuf::from)
}

/// Name of the context of a cluster.
pub(crate) fn context_name(cluster: &str, region: &str) -> String {
    format!("admin@{cluster}.{region}.isopod.dev")
}

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

fn read(path: &Path) -> anyhow::Result<Value> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => {
            serde_saphyr::from_str(&text).with_context(|| format!("{} is not a kubeconfig", path.display()))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}", path.display()))
        }
        _ => Ok(json!({"apiVersion": "v1", "kind": "Config"})),
    }
}

fn write(path: &Path, config: &Value) -> anyhow::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
    }
    let text = serde_saphyr::to_string(config)?;
    let partial = path.with_extension("isopod-partial");
    fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o600))?;
    fs::write(&partial, text)?;
    fs::rename(&partial, path).with_context(|| format!("{}", path.display()))
}

/// Takes the entries of these names out of a list.
fn without(config: &mut Value, list: &str, names: &[String]) {
    if let Some(entries) = config[list].as_array_mut() {
        entries.retain(|entry| !names.iter().any(|name| entry["name"] == **name));
    }
}

fn names(config: &Value, list: &str) -> Vec<String> {
    let entries = config[list].as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect()
}

/// Puts a kubeconfig's entries into the user's, replacing those of the same names, and makes its context the current one.
pub(crate) fn merge(path: &Path, added: &str) -> anyhow::Result<()> {
    let added: Value = serde_saphyr::from_str(added).context("the cluster's kubeconfig")?;
    let mut config = read(path)?;
    for list in LISTS {
        without(&mut config, list, &names(&added, list));
        if !config[list].is_array() {
            config[list] = json!([]);
        }
        if let (Some(all), Some(new)) = (config[list].as_array_mut(), added[list].as_array()) {
            all.extend(new.iter().cloned());
        }
    }
    config["current-context"] = added["current-context"].clone();
    write(path, &config)
}

/// Takes a kubeconfig's entries out of the user's; a file that holds nothing else goes.
pub(crate) fn remove(path: &Path, removed: &str) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let removed: Value = serde_saphyr::from_str(removed).context("the cluster's kubeconfig")?;
    let mut config = read(path)?;
    for list in LISTS {
        without(&mut config, list, &names(&removed, list));
    }
    if config["current-context"] == removed["current-context"] {
        config["current-context"] = json!("");
    }
    if LISTS.iter().all(|list| names(&config, list).is_empty()) {
        return fs::remove_file(path).with_context(|| format!("{}", path.display()));
    }
    write(path, &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(name: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": "https://x"}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        })
        .to_string()
    }

    #[test]
    fn entries_come_and_go_and_others_stay() {
        let path = std::env::temp_dir().join(format!("isopod-kubeconfig-{}", std::process::id()));
        drop(fs::remove_file(&path));
        merge(&path, &kubeconfig("mine")).unwrap();
        merge(&path, &kubeconfig("demo")).unwrap();
        merge(&path, &kubeconfig("demo")).unwrap();
        let config = read(&path).unwrap();
        assert_eq!(
            (names(&config, "clusters"), config["current-context"].as_str()),
            (vec!["mine".into(), "demo".into()], Some("demo"))
        );
        remove(&path, &kubeconfig("demo")).unwrap();
        assert_eq!(names(&read(&path).unwrap(), "contexts"), ["mine"]);
        remove(&path, &kubeconfig("mine")).unwrap();
        assert!(!path.exists());
    }
}
