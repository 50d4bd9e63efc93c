//! Kernel parameters that a pod asks for, set in the namespaces of whoever calls. Which ones it may set, the host decides.

use std::{fs, path::PathBuf};

use isopod_guest_api::{ErrorKind, Sysctl};

use crate::fault::Fault;

/// Sets them in the order given.
pub(crate) fn set(sysctls: &[Sysctl]) -> Result<(), Fault> {
    for Sysctl { name, value } in sysctls {
        let failed = Fault::io(ErrorKind::InvalidArgument, format!("sysctl {name} = {value}"));
        fs::write(file(name)?, value).map_err(failed)?;
    }
    Ok(())
}

/// Dots stand between the parts of a name; a slash stands for a dot in one of them.
fn file(name: &str) -> Result<PathBuf, Fault> {
    let parts: Vec<String> = name.split('.').map(|part| part.replace('/', ".")).collect();
    if parts.iter().any(|part| part.bytes().all(|byte| byte == b'.')) {
        return Err(Fault::invalid(format!("sysctl {name:?} is no name")));
    }
    Ok(["/proc", "sys"].into_iter().map(String::from).chain(parts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_files_and_nowhere_else() {
        for (name, expected) in [
            ("kernel.shmmax", Some("/proc/sys/kernel/shmmax")),
            ("net.ipv4.conf.eth0/1.rp_filter", Some("/proc/sys/net/ipv4/conf/eth0.1/rp_filter")),
            ("", None),
            ("a..b", None),
            ("a.//.b", None),
            ("a./.b", None),
        ] {
            assert_eq!(file(name).ok(), expected.map(PathBuf::from));
        }
    }
}
