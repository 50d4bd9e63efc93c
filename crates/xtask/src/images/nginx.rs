//! The nginx image: Debian's web server with the libraries it loads, over the busybox layer for a shell.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::archive::Image;
use super::busybox::PATH;
use super::layer::{Layer, LayerWriter};
use super::libraries::{self, read};
use crate::packages::Packages;

const PROGRAM: &str = "usr/sbin/nginx";

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
    let wanted = |name: &str| libraries::is_library(name) || name == "nginx-common";
    let tree = packages.unpack("nginx", &packages.closure("nginx", wanted)?)?;
    Ok(Image {
        tags: ["latest", "1.22"].map(|tag| format!("docker.io/library/nginx:{tag}")).to_vec(),
        layers: vec![shell.clone(), loads(&tree)?, server(&tree)?],
        config: json!({
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": [PATH],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
            "WorkingDir": "/",
        }),
    })
}

fn loads(tree: &Path) -> Result<Layer> {
    let mut layer = LayerWriter::new();
    libraries::add(&mut layer, tree, PROGRAM)?;
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
