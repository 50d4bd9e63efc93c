//! Making a guest a pod's guest: clock, entropy, host name, network, files, volumes, disks.
#![expect(unsafe_code, reason = "adding entropy is an ioctl with a C structure")]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use isopod_guest_api::{ErrorKind, NetworkConfig, PodConfig, UpdateVolumeRequest, VolumeSource};
use rustix::mount::{MountFlags, mount};

use crate::{
    disk::{self, Images},
    fault::Fault,
    network, path, volume,
};

const SHM_BYTES: u64 = 64 << 20;

/// Bytes of entropy that are taken at most.
const ENTROPY_BYTES: usize = 512;

/// `RNDADDENTROPY` and `RNDRESEEDCRNG` (linux/random.h).
const ADD_ENTROPY: libc::Ioctl = 0x4008_5203;
const RESEED: libc::Ioctl = 0x5207;

/// The pod that this guest is.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Without what differs from call to call: time and entropy.
    config: PodConfig,
    pub(crate) images: Images,
    /// Directory of each volume.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
}

impl Pod {
    /// Configures the guest. After an error it can only be thrown away.
    pub(crate) fn configure(mut config: PodConfig) -> Result<Self, Fault> {
        if config.uid.is_empty() {
            return Err(Fault::invalid("uid is empty"));
        }
        set_clock(config.realtime_unix_nanos)?;
        add_entropy(&config.entropy).map_err(Fault::internal("entropy"))?;
        rustix::system::sethostname(config.hostname.as_bytes())
            .map_err(|error| Fault::invalid(format!("hostname {:?}: {error}", config.hostname)))?;
        if let Some(network) = &config.network {
            network::configure(network)?;
        }
        write_pod_files(&config).map_err(Fault::internal("pod files"))?;
        mount_shm(config.shm_size_bytes)?;
        disk::mount_scratch(config.scratch_slot)?;
        let mut volumes = BTreeMap::new();
        for volume in &config.volumes {
            volumes.insert(volume.name.clone(), volume::make(volume, config.fs_group)?);
        }
        let mut images = Images::default();
        for image in &config.images {
            images.mounted(image.slot)?;
        }
        forget_moment(&mut config);
        Ok(Self { config, images, volumes })
    }

    /// Undoes `configure`, except for the clock and the host name, which the next pod sets.
    pub(crate) fn forget(self) -> Result<(), Fault> {
        if self.config.network.is_some() {
            network::forget().map_err(Fault::io(ErrorKind::NetworkFailed, "interface"))?;
        }
        unmount_below(Path::new(path::RUN)).map_err(Fault::io(ErrorKind::MountFailed, "unmounting"))?;
        for directory in [path::VOLUMES, path::POD, path::IMAGES] {
            fs::remove_dir_all(directory)
                .and_then(|()| fs::create_dir(directory))
                .map_err(Fault::internal(directory))?;
        }
        Ok(())
    }

    /// Whether this is the configuration that the guest has.
    pub(crate) fn is(&self, config: &PodConfig) -> bool {
        let mut config = config.clone();
        forget_moment(&mut config);
        config == self.config
    }

    pub(crate) fn uid(&self) -> &str {
        &self.config.uid
    }

    pub(crate) fn hostname(&self) -> &str {
        &self.config.hostname
    }

    /// Replaces the files of a volume.
    pub(crate) fn update_volume(&mut self, request: UpdateVolumeRequest) -> Result<(), Fault> {
        let missing =
            || Fault::new(ErrorKind::NoSuchVolume, format!("the pod has no volume {} of files", request.name));
        let volume = self.config.volumes.iter_mut().find(|volume| volume.name == request.name).ok_or_else(missing)?;
        let (Some(VolumeSource::Files(old)), Some(directory)) = (&mut volume.source, self.volumes.get(&request.name))
        else {
            return Err(missing());
        };
        let files = request.files.unwrap_or_default();
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

fn forget_moment(config: &mut PodConfig) {
    config.realtime_unix_nanos = 0;
    config.entropy = bytes::Bytes::new();
}

fn set_clock(unix_nanos: i64) -> Result<(), Fault> {
    if unix_nanos == 0 {
        return Ok(());
    }
    let time = rustix::time::Timespec {
        tv_sec: unix_nanos.div_euclid(1_000_000_000),
        tv_nsec: unix_nanos.rem_euclid(1_000_000_000),
    };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)
        .map_err(|error| Fault::invalid(format!("realtime_unix_nanos {unix_nanos}: {error}")))
}

/// Gives the kernel's generator bytes that no other clone of the template has, and makes it use them now.
fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: libc::c_int,
        length: libc::c_int,
        bytes: [u8; ENTROPY_BYTES],
    }
    let length = bytes.len().min(ENTROPY_BYTES);
    if length == 0 {
        return Ok(());
    }
    let count = i32::try_from(length).map_err(io::Error::other)?;
    let mut pool = PoolInfo { entropy_bits: count * 8, length: count, bytes: [0; ENTROPY_BYTES] };
    pool.bytes[..length].copy_from_slice(&bytes[..length]);
    let device = fs::File::options().write(true).open("/dev/urandom")?;
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: RNDADDENTROPY reads a `rand_pool_info`, which `PoolInfo` has the layout of, and `length` bytes behind it.
    // RNDRESEEDCRNG takes no argument.
    let done = unsafe { libc::ioctl(fd, ADD_ENTROPY, std::ptr::from_ref(&pool)) == 0 && libc::ioctl(fd, RESEED) == 0 };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn mount_shm(size_bytes: u64) -> Result<(), Fault> {
    let size = if size_bytes == 0 { SHM_BYTES } else { size_bytes };
    let options =
        std::ffi::CString::new(format!("mode=1777,size={size}")).map_err(|error| Fault::invalid(error.to_string()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", path::SHM, "tmpfs", flags, Some(options.as_c_str()))
        .map_err(|error| Fault::new(ErrorKind::MountFailed, format!("/dev/shm: {error}")))
}

fn write_pod_files(config: &PodConfig) -> io::Result<()> {
    let directory = Path::new(path::POD);
    fs::write(directory.join("hostname"), format!("{}\n", config.hostname))?;
    fs::write(directory.join("hosts"), hosts(config))?;
    let mut file = fs::File::create(directory.join("resolv.conf"))?;
    file.write_all(config.network.as_ref().map(resolv_conf).unwrap_or_default().as_bytes())
}

fn hosts(config: &PodConfig) -> String {
    let mut text = String::from(
        "# Managed for this pod: changes are lost when it is recreated.\n127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    if let Some(network) = &config.network {
        text.push_str(&format!("{}\t{}\n", network.ipv4_address, config.hostname));
    }
    for line in &config.hosts {
        text.push_str(line.trim_end_matches('\n'));
        text.push('\n');
    }
    text
}

fn resolv_conf(network: &NetworkConfig) -> String {
    let mut text = String::new();
    if !network.search.is_empty() {
        text.push_str(&format!("search {}\n", network.search.join(" ")));
    }
    for server in &network.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !network.options.is_empty() {
        text.push_str(&format!("options {}\n", network.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_service_files_say_what_the_pod_says() {
        let network = NetworkConfig {
            ipv4_address: "10.0.0.5".into(),
            nameservers: vec!["10.96.0.10".into(), "8.8.8.8".into()],
            search: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
            ..NetworkConfig::default()
        };
        assert_eq!(
            resolv_conf(&network),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver 8.8.8.8\noptions ndots:5\n"
        );
        let config = PodConfig {
            hostname: "web-0".into(),
            network: Some(network),
            hosts: vec!["1.2.3.4\tfoo bar".into()],
            ..PodConfig::default()
        };
        let hosts = hosts(&config);
        assert!(hosts.contains("127.0.0.1\tlocalhost\n"));
        assert!(hosts.ends_with("10.0.0.5\tweb-0\n1.2.3.4\tfoo bar\n"));
    }
}
