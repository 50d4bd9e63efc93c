//! The default system call filter (`seccompProfile: RuntimeDefault`): what containers have no use for is refused, unless they
//! hold the capability that it is for. The list follows the table of calls that Docker's documentation names as blocked.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, PoisonError},
};

use rustix::thread::CapabilitySet;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

/// Calls that no capability allows.
const NEVER: &[i64] = &[
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_nfsservctl,
    libc::SYS_pivot_root,
    libc::SYS_userfaultfd,
    libc::SYS_vmsplice,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Calls that a capability allows.
const GUARDED: &[(CapabilitySet, &[i64])] = &[
    (
        CapabilitySet::SYS_ADMIN,
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_quotactl,
            libc::SYS_lookup_dcookie,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_mount_setattr,
            libc::SYS_swapon,
            libc::SYS_swapoff,
        ],
    ),
    (CapabilitySet::BPF, &[libc::SYS_bpf]),
    (CapabilitySet::PERFMON, &[libc::SYS_perf_event_open]),
    (CapabilitySet::SYS_BOOT, &[libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_kexec_file_load]),
    (CapabilitySet::SYS_MODULE, &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module]),
    (CapabilitySet::SYS_PACCT, &[libc::SYS_acct]),
    (
        CapabilitySet::SYS_PTRACE,
        &[libc::SYS_kcmp, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pidfd_getfd],
    ),
    (CapabilitySet::SYS_RAWIO, &[libc::SYS_iopl, libc::SYS_ioperm]),
    (
        CapabilitySet::SYS_TIME,
        &[libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex],
    ),
    (CapabilitySet::SYS_TTY_CONFIG, &[libc::SYS_vhangup]),
    (CapabilitySet::DAC_READ_SEARCH, &[libc::SYS_open_by_handle_at]),
    (CapabilitySet::SYSLOG, &[libc::SYS_syslog]),
];

/// Programs that were made, by capabilities: there are few, and a new process is short of time.
static PROGRAMS: Mutex<BTreeMap<u64, BpfProgram>> = Mutex::new(BTreeMap::new());

/// Makes the program for these capabilities, for processes that are forked from this one.
pub(crate) fn prepare(capabilities: CapabilitySet) -> Result<(), seccompiler::BackendError> {
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Entry::Vacant(vacant) = programs.entry(capabilities.bits()) {
        vacant.insert(program(capabilities)?);
    }
    Ok(())
}

/// Filters this process from now on.
pub(crate) fn apply(capabilities: CapabilitySet) -> Result<(), seccompiler::Error> {
    prepare(capabilities)?;
    let programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    programs.get(&capabilities.bits()).map_or(Ok(()), |program| seccompiler::apply_filter(program))
}

fn program(capabilities: CapabilitySet) -> Result<BpfProgram, seccompiler::BackendError> {
    let guarded =
        GUARDED.iter().filter(|(capability, _)| !capabilities.contains(*capability)).flat_map(|(_, calls)| *calls);
    let rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().chain(guarded).map(|&call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let target = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, target)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_shortens_the_list() {
        let all = program(CapabilitySet::empty()).unwrap().len();
        let admin = program(CapabilitySet::SYS_ADMIN).unwrap().len();
        assert!(admin < all && all < 4096, "{admin} {all}");
    }
}
