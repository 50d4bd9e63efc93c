//! QEMU's command line, as a pure function of what a machine is. Disks, addresses and the pod are not in it: every
//! machine of one class has the same line, so that one template serves them all.

use std::{ops::RangeInclusive, os::fd::RawFd};

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;

/// Read-only disk slots.
pub const READ_ONLY_SLOTS: u32 = 8;

/// The writable slot, behind the read-only ones.
pub const SCRATCH_SLOT: u32 = READ_ONLY_SLOTS;

/// Read-only slots that a node has in addition to a pod's: more pods bring more images.
pub const NODE_READ_ONLY_SLOTS: RangeInclusive<u32> = 9..=15;

/// Writable slots that a node has in addition to a pod's, for volumes. With network and channel these are 23 devices; the
/// machine takes 24, but the interrupt of the last one (pin 0 of its second controller) does not reach Linux.
pub const NODE_WRITABLE_SLOTS: RangeInclusive<u32> = 16..=20;

/// What a machine is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// One pod.
    #[default]
    Pod,
    /// Many pods.
    Node,
}

impl Role {
    /// The last disk slot.
    pub(crate) fn last_slot(self) -> u32 {
        if self == Self::Node { *NODE_WRITABLE_SLOTS.end() } else { SCRATCH_SLOT }
    }
}

/// Whether a slot takes writable disks.
pub(crate) fn is_writable(slot: u32) -> bool {
    slot == SCRATCH_SLOT || NODE_WRITABLE_SLOTS.contains(&slot)
}

/// Size of the empty disk that stands in a slot until a real one is attached, in bytes. The guest keeps this size.
pub const PLACEHOLDER_BYTES: u64 = 1 << 40;

/// Name of the virtio-serial port that the guest agent opens.
pub const AGENT_PORT: &str = "isopod.agent";

/// Descriptor set of the console; those of disks follow.
pub(crate) const CONSOLE_FD_SET: u32 = 1;

/// CPU of a machine without KVM. The flags taken away cost time in translated code and give a pod nothing.
const TCG_CPU: &str = "max,-erms,-fsrm,-la57,-smap,-smep,-umip,-pku,-pks";

/// What the line depends on.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) accelerator: Accelerator,
    pub(crate) vcpu_count: u32,
    pub(crate) memory_mebibytes: u64,
    pub(crate) memory: Memory,
    pub(crate) start: Start,
    /// A tap device that is open; none: a network that leads nowhere.
    pub(crate) tap: Option<RawFd>,
    pub(crate) agent_listener: RawFd,
    pub(crate) qmp_listener: RawFd,
    pub(crate) console: RawFd,
}

/// Where the guest's memory is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// Anonymous: a cold boot that no template comes from.
    Private,
    /// The file of a template being made; what the guest writes is kept.
    Template(RawFd),
    /// A finished template's file; what the guest writes is its own.
    CopyOnWrite(RawFd),
}

/// How the guest starts.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    /// Boot this kernel.
    Boot { kernel: RawFd, initramfs: RawFd, command_line: String },
    /// Wait for a template's state; stay paused after it, or run.
    Restore { paused: bool },
}

impl Line {
    /// The arguments behind the program's name.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut line = Arguments::default();
        line.add([
            "-name",
            &format!("guest={}", self.name),
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-no-reboot",
        ]);
        line.add(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        self.processor_and_memory(&mut line);
        self.start(&mut line);
        line.add(["-add-fd", &format!("fd={},set={CONSOLE_FD_SET},opaque=console", self.console)]);
        line.add([
            "-chardev",
            &format!("file,id=console,path=/dev/fdset/{CONSOLE_FD_SET},append=on"),
            "-serial",
            "chardev:console",
        ]);
        for slot in 0..=self.role.last_slot() {
            disk(&mut line, slot);
        }
        self.network(&mut line);
        line.add(["-chardev", &format!("socket,id=agent,fd={},server=on,wait=off", self.agent_listener)]);
        line.add(["-device", "virtio-serial-device,max_ports=2", "-device"]);
        line.add([&format!("virtserialport,chardev=agent,name={AGENT_PORT},id=agent0")]);
        line.add(["-chardev", &format!("socket,id=qmp,fd={},server=on,wait=off", self.qmp_listener)]);
        line.add(["-mon", "chardev=qmp,mode=control"]);
        line.0
    }

    fn processor_and_memory(&self, line: &mut Arguments) {
        match self.accelerator {
            Accelerator::Kvm => line.add(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg => line.add(["-accel", "tcg,tb-size=32", "-cpu", TCG_CPU]),
        }
        let size = format!("{}M", self.memory_mebibytes);
        line.add(["-smp", &self.vcpu_count.to_string(), "-m", &size, "-M"]);
        let machine = if self.accelerator == Accelerator::Tcg { "microvm,pit=off" } else { "microvm" };
        let (file, share) = match self.memory {
            Memory::Private => return line.add([machine]),
            Memory::Template(file) => (file, "on"),
            Memory::CopyOnWrite(file) => (file, "off"),
        };
        line.add([&format!("{machine},memory-backend=mem"), "-object"]);
        line.add([&format!("memory-backend-file,id=mem,size={size},mem-path=/proc/self/fd/{file},share={share}")]);
    }

    fn start(&self, line: &mut Arguments) {
        match &self.start {
            Start::Boot { kernel, initramfs, command_line } => {
                line.add([
                    "-kernel",
                    &format!("/proc/self/fd/{kernel}"),
                    "-initrd",
                    &format!("/proc/self/fd/{initramfs}"),
                ]);
                line.add(["-append", command_line]);
            }
            Start::Restore { paused } => {
                line.add(["-incoming", "defer"]);
                if *paused {
                    line.add(["-S"]);
                }
            }
        }
    }

    fn network(&self, line: &mut Arguments) {
        let backend = match self.tap {
            Some(tap) => format!("tap,id=net0,fd={tap}"),
            None => "hubport,id=net0,hubid=0".to_owned(),
        };
        line.add(["-netdev", &backend, "-device", "virtio-net-device,netdev=net0,mac=52:54:00:00:00:01"]);
    }
}

fn disk(line: &mut Arguments, slot: u32) {
    let read_only = if is_writable(slot) { "off" } else { "on" };
    line.add(["-blockdev"]);
    line.add([&format!(
        "driver=raw,node-name=n{slot},read-only={read_only},discard=unmap,file.driver=null-co,file.node-name=p{slot},\
         file.size={PLACEHOLDER_BYTES},file.read-zeroes=on"
    )]);
    line.add(["-device", &format!("virtio-blk-device,drive=n{slot},id=vd{slot},serial=slot{slot}")]);
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(str::to_owned));
    }
}

/// The guest kernel's command line. `tsc_khz` is the rate of the host's time stamp counter: without KVM the guest cannot
/// find it out by itself on a busy host, and hangs trying.
pub(crate) fn kernel_command_line(accelerator: Accelerator, vcpu_count: u32, tsc_khz: u64) -> String {
    let mut words = vec!["panic=-1", "reboot=t", "quiet", "loglevel=0", "cryptomgr.notests", "tsc=reliable"];
    // Mounts and control groups wait for grace periods, and nobody reads an audit log or loads a profile.
    words.extend(["rcupdate.rcu_expedited=1", "audit=0", "lsm=landlock,yama"]);
    let rate = format!("tsc_early_khz={tsc_khz}");
    if accelerator == Accelerator::Tcg {
        // Translated code does not speculate as the processor does, and pays for every guard against that.
        words.extend([&rate, "mitigations=off"]);
        if vcpu_count == 1 {
            words.push("noreplace-smp");
        }
    }
    words.push(
        "initcall_blacklist=ftrace_check_for_weak_functions,trace_eval_init,init_kprobe_trace,\
         load_system_certificate_list,crypto_kdf108_init,init_encrypted",
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(memory: Memory, start: Start) -> Line {
        Line {
            name: "pod".into(),
            role: Role::Pod,
            accelerator: Accelerator::Tcg,
            vcpu_count: 1,
            memory_mebibytes: 256,
            memory,
            start,
            tap: Some(9),
            agent_listener: 4,
            qmp_listener: 5,
            console: 6,
        }
    }

    fn check(line: &Line, has: &[&str], lacks: &[&str]) {
        let text = line.arguments().join(" ");
        for word in has {
            assert!(text.contains(word), "{word} not in {text}");
        }
        for word in lacks {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }

    #[test]
    fn lines_say_what_the_machine_is() {
        let boot = || Start::Boot { kernel: 7, initramfs: 8, command_line: "quiet".into() };
        check(
            &line(Memory::Private, boot()),
            &["-kernel /proc/self/fd/7", "-m 256M", "fd=9", "slot8", "spawn=deny", "name=isopod.agent"],
            &["-incoming", "memory-backend", "kvm"],
        );
        check(&line(Memory::Template(3), boot()), &["mem-path=/proc/self/fd/3,share=on", "-kernel"], &["-incoming"]);
        let restore = line(Memory::CopyOnWrite(3), Start::Restore { paused: true });
        check(&restore, &["share=off", "-incoming defer -S"], &["-kernel", "-append", "-initrd"]);
        check(&line(Memory::CopyOnWrite(3), Start::Restore { paused: false }), &["-incoming"], &[" -S"]);
    }

    #[test]
    fn nodes_have_more_disks_and_no_more_devices_than_fit() {
        let mut node = line(Memory::Private, Start::Restore { paused: false });
        node.role = Role::Node;
        let words = node.arguments();
        let devices: Vec<&String> =
            words.iter().filter(|word| word.starts_with("virtio-") && word.contains("-device")).collect();
        assert_eq!(devices.len(), 23, "{devices:?}");
        check(&node, &["slot15", "slot20", "node-name=n20,read-only=off", "node-name=n15,read-only=on"], &["slot21"]);
    }

    #[test]
    fn a_template_and_its_clones_differ_only_in_start_and_memory() {
        let template = line(Memory::Template(3), Start::Boot { kernel: 7, initramfs: 8, command_line: "q".into() });
        let clone = line(Memory::CopyOnWrite(3), Start::Restore { paused: false });
        let devices = |line: &Line| -> Vec<String> {
            let words = line.arguments();
            words
                .windows(2)
                .filter(|pair| pair[0] == "-device" || pair[0] == "-cpu")
                .map(|pair| pair[1].clone())
                .collect()
        };
        assert_eq!(devices(&template), devices(&clone));
    }

    #[test]
    fn the_guest_is_told_the_counter_rate_only_when_it_cannot_measure_it() {
        let tcg = kernel_command_line(Accelerator::Tcg, 1, 2_596_114);
        assert!(tcg.contains("tsc_early_khz=2596114") && tcg.contains("noreplace-smp"));
        assert!(!kernel_command_line(Accelerator::Tcg, 2, 1).contains("noreplace-smp"));
        assert!(!kernel_command_line(Accelerator::Kvm, 1, 1).contains("tsc_early_khz"));
    }
}
