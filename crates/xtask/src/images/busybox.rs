//! The busybox image: one program under all its names with the libraries it loads, and the few files every root file system
//! has. Not Debian's static one: that crashes when it looks up a name.

use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::archive::Image;
use super::layer::{Layer, LayerWriter};
use super::libraries;
use crate::command::output;
use crate::packages::Packages;

const PROGRAM: &str = "bin/busybox";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n";
/// Directories and their modes.
const DIRECTORIES: [(&str, u32); 12] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("var", 0o755),
];
/// What every image of ours has in its environment.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The layer that the other images stand on as well.
pub fn layer(packages: &Packages) -> Result<Layer> {
    let tree = packages.unpack("shell", &packages.closure("busybox", libraries::is_library)?)?;
    let applets = output(Command::new(tree.join(PROGRAM)).arg("--list"))?;
    let mut layer = LayerWriter::new();
    for (path, mode) in DIRECTORIES {
        layer.directory(path, mode)?;
    }
    libraries::add(&mut layer, &tree, PROGRAM)?;
    layer.file(PROGRAM, 0o755, &libraries::read(&tree, PROGRAM)?)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer.hard_link(&format!("bin/{applet}"), PROGRAM)?;
    }
    // Scripts begin with `#!/usr/bin/env`.
    layer.symlink("usr/bin/env", "../../bin/env")?;
    layer.file("etc/passwd", 0o644, PASSWD.as_bytes())?;
    layer.file("etc/group", 0o644, GROUP.as_bytes())?;
    layer.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")?;
    layer.finish("Debian package busybox")
}

/// The image.
pub fn image(layer: &Layer) -> Image {
    Image {
        tags: ["latest", "1.35"].map(|tag| format!("docker.io/library/busybox:{tag}")).to_vec(),
        layers: vec![layer.clone()],
        config: json!({"Cmd": ["sh"], "Env": [PATH], "WorkingDir": "/"}),
    }
}
