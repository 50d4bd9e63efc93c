//! Archives and a real registry in, disks out. Disks are read back with e2fsprogs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use isopod_images::{ImageStore, Kind, Limits, Options, Origin, Policy};
use serde_json::json;
use sha2::{Digest, Sha256};

fn store(directory: &Path) -> ImageStore {
    let options = Options { directory: directory.into(), insecure_registries: Vec::new(), limits: Limits::default() };
    ImageStore::open(options).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A tar of `(path, content)`; a path that ends in `/` is a directory, content `-> x` a link, `=> x` a hard link.
fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if path.ends_with('/') { 0o755 } else { 0o640 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        let name = header.as_gnu_mut().map(|gnu| &mut gnu.name).unwrap();
        name[..path.len()].copy_from_slice(path.as_bytes());
        let body: &[u8] = match content.split_once(' ') {
            Some(("->", target)) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name_literal(target).unwrap();
                b""
            }
            Some(("=>", target)) => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_link_name_literal(target).unwrap();
                b""
            }
            _ if *content == "<device>" => {
                header.set_entry_type(tar::EntryType::Block);
                b""
            }
            _ if path.ends_with('/') => {
                header.set_entry_type(tar::EntryType::Directory);
                b""
            }
            _ => content.as_bytes(),
        };
        header.set_size(body.len() as u64);
        header.set_cksum();
        tar.append(&header, body).unwrap();
    }
    tar.into_inner().unwrap()
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/bin/a"], "Env": ["A=b"], "User": "nobody", "StopSignal": "SIGQUIT"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into_bytes()
}

fn docker_archive(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).unwrap();
    };
    let names: Vec<String> = (0..layers.len()).map(|index| format!("{index}/layer.tar")).collect();
    add("config.json", &config(layers));
    layers.iter().zip(&names).for_each(|(layer, name)| add(name, layer));
    add(
        "manifest.json",
        json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).to_string().as_bytes(),
    );
    tar.into_inner().unwrap()
}

fn import(directory: &Path, archive: &[u8]) -> Result<Vec<isopod_images::Image>, isopod_images::ImageError> {
    let file = directory.join("image.tar");
    fs::write(&file, archive).unwrap();
    store(&directory.join("store")).import(&file, None)
}

/// Output of a debugfs command on a disk.
fn debugfs(disk: &Path, command: &str) -> String {
    let output = Command::new("/sbin/debugfs").args(["-R", command]).arg(disk).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn two_layers() -> Vec<Vec<u8>> {
    vec![
        tar(&[("bin/", ""), ("bin/a", "one"), ("bin/gone", "x"), ("etc/old", "x"), ("empty", "")]),
        tar(&[
            ("bin/.wh.gone", ""),
            ("bin/b", "=> bin/a"),
            ("sh", "-> bin/a"),
            ("etc/.wh..wh..opq", ""),
            ("etc/new", "two"),
        ]),
    ]
}

#[test]
fn an_archive_becomes_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let images = import(directory.path(), &docker_archive("web:1", &two_layers())).unwrap();
    let image = &images[0];
    assert_eq!(image.reference, "docker.io/library/web:1");
    assert_eq!(image.origin, Origin::Imported);
    assert_eq!((image.config.entrypoint[0].as_str(), image.config.stop_signal.as_str()), ("/bin/a", "SIGQUIT"));
    let check = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&image.disk).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    assert_eq!(debugfs(&image.disk, "cat /bin/b"), "one");
    assert_eq!(debugfs(&image.disk, "cat /etc/new"), "two");
    let listing = debugfs(&image.disk, "ls -p /bin") + &debugfs(&image.disk, "ls -p /etc");
    assert!(!listing.contains("gone") && !listing.contains("old"), "{listing}");
    let stat = debugfs(&image.disk, "stat /bin/a");
    assert!(stat.contains("Links: 2") && stat.contains("0640") && stat.contains("User:     7"), "{stat}");
}

#[test]
fn the_same_layers_share_a_disk_and_removal_keeps_what_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let first = import(directory.path(), &docker_archive("web:1", &two_layers())).unwrap();
    let second = import(directory.path(), &docker_archive("web:2", &two_layers())).unwrap();
    assert_eq!(first[0].disk, second[0].disk);
    let store = store(&directory.path().join("store"));
    store.remove("web:1", &Default::default()).unwrap();
    assert!(store.find("web:2").is_some() && store.find("web:1").is_none());
    store.remove("web:2", &Default::default()).unwrap();
    assert!(!first[0].disk.exists());
    assert_eq!(store.remove("web:2", &Default::default()).unwrap_err().kind, Kind::NotFound);
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let evil: &[(&str, Vec<u8>)] = &[
        ("leads out of it", tar(&[("../../etc/passwd", "x")])),
        ("device node", tar(&[("dev/sda", "<device>")])),
        ("leads out of it", tar(&[("a", "=> ../../../etc/shadow")])),
        ("hard link", tar(&[("a", "=> nothing")])),
        ("cannot be read", b"\x1f\x8bgarbage".to_vec()),
    ];
    for (text, layer) in evil {
        let directory = tempfile::tempdir().unwrap();
        let error = import(directory.path(), &docker_archive("x", std::slice::from_ref(layer))).unwrap_err();
        assert!(error.message.contains(text), "{error}");
        for part in ["images", "disks", "scratch"] {
            let left = fs::read_dir(directory.path().join("store").join(part)).unwrap().count();
            assert_eq!(left, 0, "{text}: {part}");
        }
    }
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![0; 64 << 20]).unwrap();
    let file = directory.path().join("image.tar");
    fs::write(&file, docker_archive("x", &[gzip.finish().unwrap()])).unwrap();
    let limits = Limits { compressed_bytes: 1 << 20, unpacked_bytes: 1 << 20 };
    let options = Options { directory: directory.path().join("store"), insecure_registries: Vec::new(), limits };
    let error = ImageStore::open(options).unwrap().import(&file, None).unwrap_err();
    assert_eq!(error.kind, Kind::TooLarge, "{error}");
}

#[test]
fn changed_layers_are_noticed() {
    let layers = two_layers();
    let mut archive = docker_archive("x", &layers);
    let at = archive.windows(3).position(|bytes| bytes == b"one").unwrap();
    archive[at] = b'0';
    let directory = tempfile::tempdir().unwrap();
    let error = import(directory.path(), &archive).unwrap_err();
    assert!(error.message.contains("unpacks to"), "{error}");
}

/// A registry of Debian's package on a free port of loopback.
struct Registry {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Registry {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = directory.path().join("config.yml");
        let root = directory.path().display();
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {root}\nhttp:\n  addr: 127.0.0.1:{port}\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("SKIPPED: docker-registry is not installed (apt-get install docker-registry)");
            return None;
        };
        let registry = Self { child, port, _directory: directory };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the registry does not answer");
    }

    async fn push(&self, name: &str, layers: &[Vec<u8>]) {
        let reference: oci_client::Reference = format!("127.0.0.1:{}/{name}", self.port).parse().unwrap();
        let config = oci_client::client::ClientConfig {
            protocol: oci_client::client::ClientProtocol::Http,
            ..Default::default()
        };
        let client = oci_client::Client::new(config);
        let compress = |layer: &Vec<u8>| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(layer).unwrap();
            oci_client::client::ImageLayer::oci_v1_gzip(gzip.finish().unwrap(), None)
        };
        let layers_sent: Vec<_> = layers.iter().map(compress).collect();
        let config = oci_client::client::Config::oci_v1(config_bytes(layers), None);
        client
            .push(&reference, &layers_sent, config, &oci_client::secrets::RegistryAuth::Anonymous, None)
            .await
            .unwrap();
    }
}

fn config_bytes(layers: &[Vec<u8>]) -> Vec<u8> {
    config(layers)
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn images_are_pulled_from_a_registry() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let Some(registry) = Registry::start() else { return };
    registry.push("team/web:1", &two_layers()).await;
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let name = format!("127.0.0.1:{}/team/web:1", registry.port);
    let error = store.ensure(&name, Policy::Never, None).await.unwrap_err();
    assert_eq!(error.kind, Kind::NeverPull);
    let (first, second) =
        tokio::join!(store.ensure(&name, Policy::IfNotPresent, None), store.ensure(&name, Policy::IfNotPresent, None));
    let image = first.unwrap();
    assert_eq!(image, second.unwrap());
    assert_eq!(debugfs(&image.disk, "cat /bin/b"), "one");
    assert_eq!(store.ensure(&name, Policy::Always, None).await.unwrap().digest, image.digest);
    for (wrong, kind) in [("team/none:1", Kind::NotFound), ("team/web:none", Kind::NotFound)] {
        let name = format!("127.0.0.1:{}/{wrong}", registry.port);
        let error = store.ensure(&name, Policy::IfNotPresent, None).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
    drop(registry);
    let error = store.ensure(&name, Policy::Always, None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
    assert_eq!(store.ensure(&name, Policy::IfNotPresent, None).await.unwrap().id, image.id);
}
