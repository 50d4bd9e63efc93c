//! The nginx image: Debian's web server with the libraries it loads, over the busybox layer for a shell.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::archive::Image;
use super::busybox::PATH;
use super::layer::{Layer, LayerWriter};
use crate::command::output;
use crate::packages::Packages;

/// The dynamic loader, at the place that programs name.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const PROGRAM: &str = "usr/sbin/nginx";
const LIBRARY_DIRECTORIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

const CONFIGURATION: &str = "user root;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events {
    worker_connections 512;
}
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
";
const SITE: &str = "server {
    listen 80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html;
    }
}
";
const PAGE: &str = "<!doctype html>
<title>Isopod</title>
<h1>It works</h1>
<p>This page comes from nginx in a pod that Isopod runs alone in its own microVM.</p>
";
/// Directories that the program writes to or reads from, and are not parents of others here.
const DIRECTORIES: [&str; 10] = [
    "etc/nginx",
    "etc/nginx/conf.d",
    "usr/share",
    "usr/share/nginx",
    "usr/share/nginx/html",
    "usr/sbin",
    "var/lib",
    "var/lib/nginx",
    "var/log",
    "var/log/nginx",
];

/// The image: shell, libraries, web server.
pub fn image(packages: &Packages, shell: &Layer) -> Result<Image> {
    let is_library = |name: &str| name.starts_with("lib") || name.starts_with("zlib") || name == "nginx-common";
    let tree = packages.unpack("nginx", &packages.closure("nginx", is_library)?)?;
    Ok(Image {
        tags: ["latest", "1.22"].map(|tag| format!("docker.io/library/nginx:{tag}")).to_vec(),
        layers: vec![shell.clone(), libraries(&tree)?, server(&tree)?],
        config: json!({
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": [PATH],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
            "WorkingDir": "/",
        }),
    })
}

fn read(tree: &Path, path: &str) -> Result<Vec<u8>> {
    let path = tree.join(path);
    fs::read(&path).with_context(|| format!("{}", path.display()))
}

/// Paths below the tree of the libraries that the program loads, as its own loader finds them.
fn loaded(tree: &Path) -> Result<Vec<String>> {
    let places = LIBRARY_DIRECTORIES.map(|place| tree.join(place).display().to_string()).join(":");
    let loader = fs::canonicalize(tree.join(LIBRARY_DIRECTORIES[0]).join("ld-linux-x86-64.so.2"))?;
    let text = output(Command::new(loader).arg("--library-path").arg(places).arg("--list").arg(tree.join(PROGRAM)))?;
    let mut found = Vec::new();
    for line in text.lines().filter_map(|line| line.split_once(" => ")) {
        let path = line.1.split(" (").next().unwrap_or_default();
        let inside = Path::new(path).strip_prefix(tree);
        let inside = inside.with_context(|| format!("nginx needs {}, which no package here has", line.0.trim()))?;
        found.push(inside.display().to_string());
    }
    ensure!(!found.is_empty(), "nginx loads no libraries, says its loader:\n{text}");
    Ok(found)
}

fn libraries(tree: &Path) -> Result<Layer> {
    let mut layer = LayerWriter::new();
    for directory in ["lib", "lib64", "usr/lib"].iter().chain(&LIBRARY_DIRECTORIES) {
        layer.directory(directory, 0o755)?;
    }
    for path in loaded(tree)?.iter().filter(|path| !path.ends_with("ld-linux-x86-64.so.2")) {
        layer.file(path, 0o644, &read(tree, path)?)?;
    }
    let loader = format!("{}/ld-linux-x86-64.so.2", LIBRARY_DIRECTORIES[0]);
    layer.file(LOADER, 0o755, &read(tree, &loader)?)?;
    layer.finish("libraries of Debian package nginx")
}

fn server(tree: &Path) -> Result<Layer> {
    let mut layer = LayerWriter::new();
    for directory in DIRECTORIES {
        layer.directory(directory, 0o755)?;
    }
    layer.file(PROGRAM, 0o755, &read(tree, PROGRAM)?)?;
    layer.file("etc/nginx/mime.types", 0o644, &read(tree, "etc/nginx/mime.types")?)?;
    layer.file("etc/nginx/nginx.conf", 0o644, CONFIGURATION.as_bytes())?;
    layer.file("etc/nginx/conf.d/default.conf", 0o644, SITE.as_bytes())?;
    layer.file("usr/share/nginx/html/index.html", 0o644, PAGE.as_bytes())?;
    // What is logged before the configuration is read goes to the built-in name.
    layer.symlink("var/log/nginx/error.log", "/dev/stderr")?;
    layer.finish("Debian package nginx")
}
