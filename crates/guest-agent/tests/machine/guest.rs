//! Every call, through the host agent's client, against a guest agent in a machine.

use bytes::Bytes;
use futures::StreamExt;
use isopod_guest_api::{
    AttachRequest, ContainerConfig, EmptyDirVolume, ErrorKind, ExecStart, FilesVolume, LogsRequest, Mount, PodConfig,
    TerminalSize, UpdateContainerRequest, UpdateVolumeRequest, Volume, VolumeFile, VolumeSource,
};
use isopod_host_agent::guest::{ExecInput, ExecOutput, ExecSession, GuestClient};
use isopod_vmm::Machine;

use crate::support::{self, Lab, container, text, wait_until};

/// A machine with the image in slot 0, and a conversation with it.
pub async fn guest(lab: &Lab, id: &str) -> (Machine, GuestClient) {
    let machine = lab.machine(id, 256).await;
    let client = support::client(&machine).await;
    (machine, client)
}

/// As `guest`, configured.
pub async fn pod(lab: &Lab, id: &str, config: PodConfig) -> (Machine, GuestClient) {
    let (machine, client) = guest(lab, id).await;
    client.configure_pod(config).await.unwrap();
    (machine, client)
}

/// Runs a container to its end; returns its exit and its standard output.
pub async fn run(client: &GuestClient, config: ContainerConfig) -> (isopod_guest_api::ContainerExited, String) {
    let id = config.id.clone();
    let mut events = client.events(0).await.unwrap();
    client.start_container(config).await.unwrap();
    let (out, err) = support::logs(client, LogsRequest { container_id: id.clone(), offset: 0, follow: true }).await;
    let exit = support::exit(&mut events, &id).await;
    (exit, format!("{}{}", text(&out), text(&err)))
}

/// Everything that a session says: output, and how it ended.
pub async fn finish(mut session: ExecSession) -> (String, ExecOutput) {
    let mut output = Vec::new();
    loop {
        match session.output.recv().await.expect("a session ends with an exit or a failure") {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => output.extend_from_slice(&bytes),
            last => return (text(&output).to_owned(), last),
        }
    }
}

pub fn exec(id: &str, line: &str) -> ExecStart {
    ExecStart { container_id: id.into(), argv: ["sh", "-c", line].map(str::to_owned).to_vec(), ..ExecStart::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_sees_what_its_configuration_says() {
    let Some(lab) = Lab::open(true).await else { return };
    let (machine, client) = pod(&lab, "sees", support::pod("pod-1")).await;
    let base = |id: &str, line: &str| container(id, line);
    let table: Vec<(ContainerConfig, i32, &str)> = vec![
        (base("hostname", "hostname; cat /etc/hostname"), 0, "web-0\nweb-0\n"),
        (base("pid", "echo $$"), 0, "1\n"),
        (ContainerConfig { cwd: "/made/here".into(), ..base("cwd", "pwd") }, 0, "/made/here\n"),
        (
            ContainerConfig { user: "web".into(), ..base("user", "id -u; id -g; id -G; echo $HOME") },
            0,
            "101\n102\n102 50\n/home/web\n",
        ),
        (
            ContainerConfig {
                run_as_user: Some(7),
                run_as_group: Some(8),
                supplemental_groups: vec![9],
                ..base("runas", "id -u; id -g; id -G")
            },
            0,
            "7\n8\n8 9\n",
        ),
        (
            ContainerConfig { env: vec!["A=b=c".into(), "HOME=/x".into()], ..base("env", "echo $A $HOME $HOSTNAME") },
            0,
            "b=c /x web-0\n",
        ),
        (
            ContainerConfig {
                readonly_rootfs: true,
                ..base("readonly", "touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo shm")
            },
            0,
            "refused\nshm\n",
        ),
        (
            base(
                "masked",
                "cat /proc/kcore | head -c 1; touch /proc/sys/kernel/hostname 2>/dev/null || echo; echo hi > /proc/sys/kernel/domainname 2>/dev/null || echo refused",
            ),
            0,
            "refused",
        ),
        (base("status", "exit 42"), 42, ""),
        (
            base(
                "limits",
                "ulimit -n; ulimit -Hn; grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status | cat",
            ),
            0,
            "1024\n65535\nCapEff:\t00000000a00425fb\nCapBnd:\t00000000a00425fb\nNoNewPrivs:\t0\nSeccomp:\t0\n",
        ),
        (
            ContainerConfig {
                no_new_privileges: true,
                seccomp_default: true,
                drop_capabilities: vec!["ALL".into()],
                ..base("tight", "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status | cat")
            },
            0,
            "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
        ),
        (
            ContainerConfig {
                seccomp_default: true,
                add_capabilities: vec!["SYS_TIME".into()],
                ..base(
                    "filter",
                    "mount -t tmpfs x /tmp || echo refused; date -s @1 > /dev/null && echo set; grep Seccomp: /proc/self/status",
                )
            },
            0,
            "refused\nset\nSeccomp:\t2\n",
        ),
        (
            ContainerConfig {
                privileged: true,
                ..base("privileged", "mount -t tmpfs x /tmp && echo mounted; grep CapEff /proc/self/status")
            },
            0,
            "mounted\nCapEff:\t000001ffffffffff\n",
        ),
        (
            ContainerConfig { user: "web".into(), ..base("unprivileged", "grep -E CapEff /proc/self/status") },
            0,
            "CapEff:\t0000000000000000\n",
        ),
        (
            base(
                "devices",
                "cat /dev/null; head -c 2 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; ls /dev | cat",
            ),
            0,
            "2\n3\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntermination-log\ntty\nurandom\nzero\n",
        ),
        (
            base("group", "cat /proc/self/cgroup; ls /sys/fs/cgroup/memory.max; ls /proc/1/root/run/isopod 2>&1 | cat"),
            0,
            "0::/\n/sys/fs/cgroup/memory.max\n",
        ),
        (base("open", "ls /proc/self/fd | cat"), 0, "0\n1\n2\n3\n"),
        (base("stderr", "echo e >&2"), 0, "e\n"),
        (base("mounts", "mount | head -1 | cat; ls /run/isopod 2>/dev/null; ls / | tail -20 | cat"), 0, "overlay"),
        (
            ContainerConfig {
                user: "web".into(),
                ..base("devstdout", "echo a > /dev/stdout; echo b > /dev/stderr; echo c > /dev/null")
            },
            0,
            "a\nb\n",
        ),
    ];
    for (config, code, expected) in table {
        let id = config.id.clone();
        let (exit, output) = run(&client, config).await;
        assert_eq!(exit.code, code, "{id}: {output}");
        assert!(output.contains(expected), "{id}: {output:?} lacks {expected:?}");
        client.remove_container(&id).await.unwrap();
    }
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_started_is_told_by_kind() {
    let Some(lab) = Lab::open(true).await else { return };
    let (machine, client) = guest(&lab, "faults").await;
    let early = client.start_container(container("early", "true")).await.unwrap_err();
    assert_eq!(early.kind(), Some(ErrorKind::NotConfigured), "{early}");
    client.configure_pod(support::pod("pod-1")).await.unwrap();
    client.configure_pod(support::pod("pod-1")).await.unwrap();
    let other = client.configure_pod(support::pod("pod-2")).await.unwrap_err();
    assert_eq!(other.kind(), Some(ErrorKind::AlreadyExists), "{other}");
    let program = |argv: &[&str]| ContainerConfig {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        ..container("x", "")
    };
    let mount = Mount { volume: "none".into(), mount_path: "/v".into(), ..Mount::default() };
    let table = vec![
        (program(&["foo"]), ErrorKind::CommandNotFound, "exec: \"foo\": executable file not found in $PATH"),
        (program(&["/foo"]), ErrorKind::CommandNotFound, "exec: \"/foo\": stat /foo: no such file or directory"),
        (program(&["/etc/passwd"]), ErrorKind::PermissionDenied, "exec: \"/etc/passwd\": permission denied"),
        (program(&[]), ErrorKind::InvalidArgument, "no command specified"),
        (
            ContainerConfig { user: "ghost".into(), ..container("x", "") },
            ErrorKind::NoSuchUser,
            "unable to find user ghost",
        ),
        (ContainerConfig { image_slot: 3, ..container("x", "") }, ErrorKind::NoSuchImage, "slot 3"),
        (ContainerConfig { image_slot: 99, ..container("x", "") }, ErrorKind::NoSuchImage, "slot 99"),
        (ContainerConfig { mounts: vec![mount], ..container("x", "") }, ErrorKind::NoSuchVolume, "none"),
        (
            ContainerConfig { cwd: "/etc/passwd".into(), ..container("x", "") },
            ErrorKind::WorkingDirectory,
            "/etc/passwd",
        ),
        (ContainerConfig { id: "../x".into(), ..container("x", "") }, ErrorKind::InvalidArgument, "../x"),
    ];
    for (config, kind, message) in table {
        let error = client.start_container(config).await.unwrap_err();
        assert_eq!(error.kind(), Some(kind), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
    }
    // None of them is left, and the name is free.
    let (exit, _) = run(&client, container("x", "exit 0")).await;
    assert_eq!(exit.code, 0);
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_told_with_signal_memory_and_message() {
    let Some(lab) = Lab::open(true).await else { return };
    let (machine, client) = pod(&lab, "ends", support::pod("pod-1")).await;
    let mut events = client.events(0).await.unwrap();
    client.start_container(container("killed", "sleep 1000")).await.unwrap();
    client.signal_container("killed", 9, false).await.unwrap();
    let exit = support::exit(&mut events, "killed").await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, false));
    let trap = "trap 'exit 5' TERM; echo ready; while true; do sleep 1000 & wait $!; done";
    client.start_container(container("term", trap)).await.unwrap();
    let mut log = client.logs(LogsRequest { container_id: "term".into(), offset: 0, follow: true }).await.unwrap();
    log.next().await.unwrap().unwrap();
    client.signal_container("term", 15, false).await.unwrap();
    assert_eq!(support::exit(&mut events, "term").await.code, 5);
    let hungry = ContainerConfig {
        memory_limit_bytes: 16 << 20,
        ..container("hungry", "yes x | head -c 100000000 | tail -c 90000000 > /dev/null")
    };
    let (exit, _) = run(&client, hungry).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    let (exit, _) = run(&client, container("message", "printf 'last words' > /dev/termination-log; exit 1")).await;
    assert_eq!(exit.termination_message, "last words");
    let fallback =
        ContainerConfig { termination_message_from_logs: true, ..container("fallback", "echo one; echo two; exit 1") };
    assert_eq!(run(&client, fallback).await.0.termination_message, "one\ntwo");
    let gone = client.signal_container("fallback", 9, false).await.unwrap_err();
    assert_eq!(gone.kind(), Some(ErrorKind::NotRunning));
    client.remove_container("fallback").await.unwrap();
    assert_eq!(client.remove_container("fallback").await.unwrap_err().kind(), Some(ErrorKind::NoSuchContainer));
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_attach_and_forward_reach_a_running_container() {
    let Some(lab) = Lab::open(true).await else { return };
    let (machine, client) = pod(&lab, "exec", support::pod("pod-1")).await;
    let main = ContainerConfig { user: "web".into(), env: vec!["A=1".into()], ..container("main", "sleep 1000") };
    client.start_container(main).await.unwrap();
    let (output, last) =
        finish(client.exec(exec("main", "id -u; echo $A; hostname; echo e >&2; exit 9")).await.unwrap()).await;
    assert_eq!(last, ExecOutput::Exited { code: 9 });
    assert!(output.contains("101\n1\nweb-0\n") && output.contains("e\n"), "{output}");

    let session = client.exec(ExecStart { stdin: true, ..exec("main", "cat; echo end") }).await.unwrap();
    let big = Bytes::from(vec![b'z'; 300_000]);
    session.input.send(ExecInput::Stdin(big.clone())).await.unwrap();
    session.input.send(ExecInput::StdinClosed).await.unwrap();
    let (output, last) = finish(session).await;
    assert_eq!((output.len(), last), (300_004, ExecOutput::Exited { code: 0 }));

    let size = Some(TerminalSize { columns: 77, rows: 33 });
    let session = client
        .exec(ExecStart {
            tty: true,
            stdin: true,
            terminal_size: size,
            ..exec("main", "stty size; read x; stty size; echo $x")
        })
        .await
        .unwrap();
    session.input.send(ExecInput::Resize { columns: 80, rows: 24 }).await.unwrap();
    session.input.send(ExecInput::Stdin(Bytes::from_static(b"typed\n"))).await.unwrap();
    let (output, last) = finish(session).await;
    assert_eq!(last, ExecOutput::Exited { code: 0 });
    assert!(output.contains("24 80") && output.matches("typed").count() == 2, "{output:?}");

    for (start, kind) in [
        (ExecStart { argv: vec!["nope".into()], ..exec("main", "") }, ErrorKind::CommandNotFound),
        (exec("ghost", "true"), ErrorKind::NoSuchContainer),
        (ExecStart { argv: vec![], ..exec("main", "") }, ErrorKind::InvalidArgument),
    ] {
        assert_eq!(client.exec(start).await.unwrap_err().kind(), Some(kind));
    }

    // A session that is dropped takes its process with it.
    let session = client.exec(exec("main", "echo $$; sleep 12345")).await.unwrap();
    drop(session);
    wait_until(
        async || {
            finish(client.exec(exec("main", "for p in /proc/[0-9]*; do cat $p/cmdline; done")).await.unwrap()).await.0
        },
        |text| !text.contains("sleep\u{0}12345"),
    )
    .await;
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_reaches_an_attached_container_and_ports_are_forwarded() {
    let Some(lab) = Lab::open(true).await else { return };
    let (machine, client) = pod(&lab, "attach", support::pod("pod-1")).await;
    client
        .start_container(ContainerConfig {
            stdin: true,
            ..container("cat", "while read a; do echo got $a; done; echo closed")
        })
        .await
        .unwrap();
    let attach = || AttachRequest { container_id: "cat".into(), stdin: true, terminal_size: None };
    // However a session ends, the next one finds the input open.
    for closes in [false, true].repeat(10) {
        let mut session = client.attach(attach()).await.unwrap();
        session.input.send(ExecInput::Stdin(Bytes::from_static(b"one\n"))).await.unwrap();
        assert_eq!(session.output.recv().await, Some(ExecOutput::Stdout(Bytes::from_static(b"got one\n"))));
        if closes {
            session.input.send(ExecInput::StdinClosed).await.unwrap();
        }
    }

    client
        .start_container(ContainerConfig {
            stdin: true,
            stdin_once: true,
            ..container("once", "read a; echo got $a; read b; echo got $b")
        })
        .await
        .unwrap();
    let once = || AttachRequest { container_id: "once".into(), ..attach() };
    let watching = client.attach(AttachRequest { stdin: false, ..once() }).await.unwrap();
    let mut first = client.attach(once()).await.unwrap();
    first.input.send(ExecInput::Stdin(Bytes::from_static(b"two\n"))).await.unwrap();
    // What a session that is dropped has just sent may be dropped with it.
    assert_eq!(first.output.recv().await, Some(ExecOutput::Stdout(Bytes::from_static(b"got two\n"))));
    drop(first);
    assert_eq!(finish(watching).await, ("got two\ngot\n".into(), ExecOutput::Exited { code: 0 }));

    client
        .start_container(ContainerConfig {
            tty: true,
            stdin: true,
            ..container("tty", "stty -echo; read a; echo tty $a; ls -l /proc/self/fd/0")
        })
        .await
        .unwrap();
    let session = client.attach(AttachRequest { container_id: "tty".into(), ..attach() }).await.unwrap();
    session.input.send(ExecInput::Stdin(Bytes::from_static(b"x\n"))).await.unwrap();
    let (output, last) = finish(session).await;
    assert_eq!(last, ExecOutput::Exited { code: 0 });
    assert!(output.contains("tty x") && output.contains("/dev/pts/0"), "{output:?}");

    client
        .start_container(container(
            "web",
            "mkdir /www; echo page > /www/index.html; echo ready; exec busybox httpd -f -p 8080 -h /www",
        ))
        .await
        .unwrap();
    let mut log = client.logs(LogsRequest { container_id: "web".into(), offset: 0, follow: true }).await.unwrap();
    log.next().await.unwrap().unwrap();
    let mut port = None;
    wait_until(
        async || match client.connect_port(8080).await {
            Ok(connection) => port.replace(connection).is_none(),
            Err(error) => {
                assert_eq!(error.kind(), Some(ErrorKind::ConnectionRefused));
                false
            }
        },
        |connected| *connected,
    )
    .await;
    let mut port = port.unwrap();
    port.input.send(Bytes::from_static(b"GET /index.html HTTP/1.0\r\n\r\n")).await.unwrap();
    let mut page = Vec::new();
    while let Some(piece) = port.output.recv().await {
        page.extend_from_slice(&piece.unwrap());
    }
    assert!(text(&page).ends_with("page\n"), "{}", text(&page));
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_may_see_the_processes_of_another() {
    let Some(lab) = Lab::open(true).await else { return };
    let (machine, client) = pod(&lab, "target", support::pod("pod-1")).await;
    let beside = |id: &str, line: &str| ContainerConfig { target: "main-0".into(), ..container(id, line) };
    let missing = client.start_container(beside("early", "true")).await.unwrap_err();
    assert_eq!(missing.kind(), Some(ErrorKind::NoSuchContainer), "{missing}");
    let mut events = client.events(0).await.unwrap();
    client.start_container(container("main-0", "echo mine > /file; exec sleep 1000")).await.unwrap();
    // It sees the target's processes and through them its files; its own files are its own.
    let line = "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/root/file; test -e /file || echo apart; sh -c 'sleep 1000 &'";
    let (exit, output) = run(&client, beside("look", line)).await;
    assert_eq!((exit.code, output.as_str()), (0, "sleep 1000 \nmine\napart\n"));
    // What it left behind went with it, and the target did not. (The dead wait for the target to ask after them.)
    let living = "grep -h State: /proc/[0-9]*/status | grep -vc Z";
    let (said, end) = finish(client.exec(exec("main-0", living)).await.unwrap()).await;
    assert_eq!((said.as_str(), end), ("4\n", ExecOutput::Exited { code: 0 }));
    client.start_container(beside("stays", "exec sleep 1000")).await.unwrap();
    let (said, _) = finish(client.exec(exec("stays", "cat /proc/1/root/file")).await.unwrap()).await;
    assert_eq!(said, "mine\n");
    client.signal_container("main-0", 9, false).await.unwrap();
    // Whoever is in its namespace ends before it does.
    assert_eq!(support::exit(&mut events, "stays").await.signal, 9);
    assert_eq!(support::exit(&mut events, "main-0").await.code, 137);
    machine.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_container_is_given_other_limits() {
    let Some(lab) = Lab::open(true).await else { return };
    let (machine, client) = pod(&lab, "resized", support::pod("pod-1")).await;
    let config = ContainerConfig { memory_limit_bytes: 64 << 20, ..container("c-0", "exec sleep 1000") };
    client.start_container(config).await.unwrap();
    let wanted = |memory_limit_bytes, cpu_limit_millis, cpu_request_millis| UpdateContainerRequest {
        id: "c-0".into(),
        memory_limit_bytes,
        cpu_limit_millis,
        cpu_request_millis,
    };
    let table = [
        (wanted(96 << 20, 500, 1000), "100663296\n50000 100000\n39\n"),
        (wanted(32 << 20, 250, 100), "33554432\n25000 100000\n4\n"),
        (wanted(0, 0, 0), "max\nmax 100000\n1\n"),
    ];
    for (request, expected) in table {
        client.update_container(request).await.unwrap();
        let line = "cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight";
        let (said, _) = finish(client.exec(exec("c-0", line)).await.unwrap()).await;
        assert_eq!(said, expected);
    }
    let refused = client.update_container(wanted(4096, 0, 0)).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::LimitReached), "{refused}");
    let nobody = UpdateContainerRequest { id: "x".into(), ..wanted(0, 0, 0) };
    assert_eq!(client.update_container(nobody).await.unwrap_err().kind(), Some(ErrorKind::NoSuchContainer));
    machine.destroy().await.unwrap();
}

fn files(entries: &[(&str, &str)]) -> FilesVolume {
    let file = |(path, content): &(&str, &str)| VolumeFile {
        path: (*path).into(),
        content: Bytes::copy_from_slice(content.as_bytes()),
        mode: 0o640,
        ..VolumeFile::default()
    };
    FilesVolume { files: entries.iter().map(file).collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_shared_updated_and_bounded() {
    let Some(lab) = Lab::open(true).await else { return };
    let volume = |name: &str, source| Volume { name: name.into(), source: Some(source) };
    let config = PodConfig {
        volumes: vec![
            volume("disk", VolumeSource::EmptyDir(EmptyDirVolume::default())),
            volume("memory", VolumeSource::EmptyDir(EmptyDirVolume { memory: true, size_limit_bytes: 1 << 20 })),
            volume("config", VolumeSource::Files(files(&[("key", "one"), ("dir/deep", "two")]))),
        ],
        fs_group: Some(50),
        ..support::pod("pod-1")
    };
    let (machine, client) = pod(&lab, "volumes", config.clone()).await;
    let mount = |volume: &str, path: &str, sub: &str, read_only| Mount {
        volume: volume.into(),
        mount_path: path.into(),
        sub_path: sub.into(),
        read_only,
    };
    let with = |id: &str, line: &str, mounts: Vec<Mount>| ContainerConfig { mounts, ..container(id, line) };
    let web = |config: ContainerConfig| ContainerConfig { user: "web".into(), ..config };
    let table = vec![
        (web(with("write", "echo x > /v/a && ls -n /v/a", vec![mount("disk", "/v", "", false)])), " 101 "),
        (with("read", "cat /v/a; touch /v/b || echo refused", vec![mount("disk", "/v", "", true)]), "x\nr"),
        (
            with("bounded", "dd if=/dev/zero of=/v/a bs=1M count=3 2>&1", vec![mount("memory", "/v", "", false)]),
            "No space left",
        ),
        (web(with("files", "cat /c/key /c/dir/deep", vec![mount("config", "/c", "", true)])), "onetwo"),
        (
            with(
                "sub",
                "cat /c/d; cat /etc/one",
                vec![mount("config", "/c/d", "dir/deep", true), mount("config", "/etc/one", "key", true)],
            ),
            "twoone",
        ),
        (with("link", "ln -s /etc /v/etc; echo", vec![mount("disk", "/v", "", false)]), "\n"),
        (with("made", "touch /w/x && ls /w", vec![mount("disk", "/w", "new/dir", false)]), "x\n"),
        (with("seen", "ls /v/new/dir", vec![mount("disk", "/v", "", false)]), "x\n"),
    ];
    for (config, expected) in table {
        let id = config.id.clone();
        let (_, output) = run(&client, config).await;
        let output = if id == "read" { output.replace("touch: /v/b: Read-only file system\n", "") } else { output };
        assert!(output.contains(expected), "{id}: {output:?}");
    }
    // A link that a container made leads nowhere.
    let escape =
        client.start_container(with("escape", "ls /w", vec![mount("disk", "/w", "etc", false)])).await.unwrap_err();
    assert_eq!(escape.kind(), Some(ErrorKind::MountFailed), "{escape}");
    client.start_container(with("watcher", "sleep 1000", vec![mount("config", "/c", "", true)])).await.unwrap();
    client.start_container(with("keeper", "sleep 1000", vec![mount("config", "/one", "key", true)])).await.unwrap();
    client
        .update_volume(UpdateVolumeRequest {
            name: "config".into(),
            files: Some(files(&[("key", "new")])),
            ..Default::default()
        })
        .await
        .unwrap();
    let (output, _) = finish(client.exec(exec("watcher", "cat /c/key; ls /c")).await.unwrap()).await;
    assert_eq!(output, "newkey\n");
    let (output, _) = finish(client.exec(exec("watcher", "ls -A /c | wc -l; readlink /c/..data")).await.unwrap()).await;
    assert!(output.starts_with("3\n..20") && output.matches('_').count() == 5, "{output}");
    let (output, _) = finish(client.exec(exec("keeper", "cat /one")).await.unwrap()).await;
    assert_eq!(output, "one", "what is mounted by its path stays as it was");
    // The same configuration again brings what its files hold by now; another is refused.
    let mut again = config;
    again.volumes[2].source = Some(VolumeSource::Files(files(&[("key", "newer")])));
    client.configure_pod(again.clone()).await.unwrap();
    let (output, _) = finish(client.exec(exec("watcher", "cat /c/key")).await.unwrap()).await;
    assert_eq!(output, "newer");
    again.volumes.pop();
    assert_eq!(client.configure_pod(again).await.unwrap_err().kind(), Some(ErrorKind::AlreadyExists));
    let missing =
        client.update_volume(UpdateVolumeRequest { name: "disk".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(missing.kind(), Some(ErrorKind::NoSuchVolume));
    machine.destroy().await.unwrap();
}
