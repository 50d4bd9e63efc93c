//! A pod in this guest: its files, volumes, shared memory and, on a node of many, its namespaces.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use isopod_guest_api::{ErrorKind, PodConfig, UpdateVolumeRequest, VolumeSource};
use rustix::mount::{MountFlags, mount};

use crate::{
    disk::Images, fault::Fault, identity::Identity, name_service, network, path, relay::Relays, sandbox::Sandbox,
    sysctl, volume,
};

const SHM_BYTES: u64 = 64 << 20;

/// A pod: the one that has the machine to itself, or one of many.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Without what differs from call to call: time and entropy.
    config: PodConfig,
    /// Directory of each volume.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    /// Namespaces of its own; none: the machine's.
    pub(crate) sandbox: Option<Arc<Sandbox>>,
    /// Ports of the node that lead to it.
    relays: Relays,
}

impl Pod {
    /// Makes the pod. After an error, a machine that was to be this pod's can only be thrown away.
    pub(crate) fn configure(mut config: PodConfig, images: &mut Images) -> Result<Self, Fault> {
        check_uid(&config.uid)?;
        let sandbox = if config.shared {
            Some(Arc::new(Sandbox::make(&config)?))
        } else {
            Identity::from(&config).assume()?;
            None
        };
        match &sandbox {
            Some(sandbox) => sandbox.within(|| sysctl::set(&config.sysctls))??,
            None => sysctl::set(&config.sysctls)?,
        }
        let directory = path::pod(&config.uid);
        name_service::of_pod(&directory, &config).map_err(Fault::internal("pod files"))?;
        mount_shm(&directory.join("shm"), config.shm_size_bytes)?;
        let mut volumes = BTreeMap::new();
        for volume in &config.volumes {
            volumes.insert(volume.name.clone(), volume::make(&config.uid, volume, config.fs_group)?);
        }
        for image in &config.images {
            images.mounted(image.slot)?;
        }
        let relays = Relays::open(&config)?;
        forget_moment(&mut config);
        Ok(Self { config, volumes, sandbox, relays })
    }

    /// Closes the ports of the node that lead to it.
    pub(crate) async fn close_ports(&mut self) {
        std::mem::take(&mut self.relays).close().await;
    }

    /// Takes away what the pod has in this guest. None of its containers may be there any more.
    pub(crate) fn forget(self) -> Result<(), Fault> {
        if !self.config.shared && self.config.network.is_some() {
            network::forget().map_err(Fault::io(ErrorKind::NetworkFailed, "interface"))?;
        }
        remove(&self.config.uid).map_err(Fault::io(ErrorKind::MountFailed, "the pod's files"))
    }

    /// The directory of its files and its shared memory.
    pub(crate) fn directory(&self) -> PathBuf {
        path::pod(&self.config.uid)
    }

    /// Whether this is the configuration that the guest has, whatever is in its files by now.
    pub(crate) fn is(&self, config: &PodConfig) -> bool {
        without_files(config) == without_files(&self.config)
    }

    /// Takes over what is in the files of the same configuration by now.
    pub(crate) fn renew(&mut self, config: PodConfig) -> Result<(), Fault> {
        for volume in config.volumes {
            if let Some(VolumeSource::Files(files)) = volume.source {
                let pod_uid = config.uid.clone();
                self.update_volume(UpdateVolumeRequest { name: volume.name, files: Some(files), pod_uid })?;
            }
        }
        Ok(())
    }

    pub(crate) fn uid(&self) -> &str {
        &self.config.uid
    }

    pub(crate) fn hostname(&self) -> &str {
        &self.config.hostname
    }

    /// Replaces the files of a volume, if they are others.
    pub(crate) fn update_volume(&mut self, request: UpdateVolumeRequest) -> Result<(), Fault> {
        let missing =
            || Fault::new(ErrorKind::NoSuchVolume, format!("the pod has no volume {} of files", request.name));
        let volume = self.config.volumes.iter_mut().find(|volume| volume.name == request.name).ok_or_else(missing)?;
        let (Some(VolumeSource::Files(old)), Some(directory)) = (&mut volume.source, self.volumes.get(&request.name))
        else {
            return Err(missing());
        };
        let files = request.files.unwrap_or_default();
        if *old == files {
            return Ok(());
        }
        volume::write_files(directory, &files, self.config.fs_group)?;
        *old = files;
        Ok(())
    }
}

/// Unmounts everything below a directory, what was mounted last first. A mount that is in use is an error: a disk behind it must
/// not be taken out.
pub(crate) fn unmount_below(directory: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(directory))
        .collect();
    for point in points.iter().rev() {
        rustix::mount::unmount(*point, rustix::mount::UnmountFlags::empty())?;
    }
    Ok(())
}

/// A configuration without what may change while a pod runs.
fn without_files(config: &PodConfig) -> PodConfig {
    let mut config = config.clone();
    forget_moment(&mut config);
    for volume in &mut config.volumes {
        if let Some(VolumeSource::Files(files)) = &mut volume.source {
            *files = Default::default();
        }
    }
    config
}

fn forget_moment(config: &mut PodConfig) {
    config.realtime_unix_nanos = 0;
    config.entropy = bytes::Bytes::new();
}

/// A UID becomes the name of directories.
fn check_uid(uid: &str) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if uid.is_empty() || uid.len() > 64 || !uid.chars().all(good) {
        return Err(Fault::invalid(format!("uid {uid:?} is not 1 to 64 letters, digits or `-`")));
    }
    Ok(())
}

/// Removes a pod's directories, once nothing is mounted in them.
pub(crate) fn remove(uid: &str) -> io::Result<()> {
    for directory in [path::pod(uid), path::scratch_volumes(uid)] {
        unmount_below(&directory)?;
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn mount_shm(directory: &Path, size_bytes: u64) -> Result<(), Fault> {
    fs::create_dir_all(directory).map_err(Fault::internal("shm"))?;
    let size = if size_bytes == 0 { SHM_BYTES } else { size_bytes };
    let options =
        std::ffi::CString::new(format!("mode=1777,size={size}")).map_err(|error| Fault::invalid(error.to_string()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", directory, "tmpfs", flags, Some(options.as_c_str()))
        .map_err(|error| Fault::new(ErrorKind::MountFailed, format!("/dev/shm: {error}")))
}
