//! The product as its users meet it: the binary, kubectl, real microVMs. Each test has a cluster of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod support;
mod walkthroughs;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;

use support::{Cluster, kill, text};

#[test]
fn a_deployment_is_served_scaled_and_rolled() {
    let Some(cluster) = Cluster::create("e2e-web") else { return };
    let context = cluster.kubectl(&["config", "current-context"]);
    assert!(context.contains("e2e-web"), "{context}");
    cluster.kubectl(&["create", "deployment", "nginx", "--image=nginx"]);
    cluster.kubectl(&["rollout", "status", "deployment", "nginx", "--timeout=90s"]);
    let address = cluster.field("pods", "{.items[0].status.podIP}");
    cluster.wait_until("the page", || cluster.http(&address).contains("Isopod"));
    let node = cluster.kubectl(&["get", "nodes", "--no-headers"]);
    assert!(
        node.starts_with(&format!("fargate-ip-{}", address.replace('.', "-"))) && node.contains(" Ready "),
        "{node}"
    );
    let pod = cluster.kubectl(&["describe", "pod"]);
    for part in
        ["CapacityProvisioned: 0.25vCPU 0.5GB", "eks.amazonaws.com/fargate-profile=fp-default", "Successfully assigned"]
    {
        assert!(pod.contains(part), "{part}: {pod}");
    }

    cluster.kubectl(&["scale", "deployment", "nginx", "--replicas=4"]);
    cluster.wait_for("deployment/nginx", "{.status.readyReplicas}", "4");
    assert_eq!(cluster.count("nodes"), 4);
    cluster.kubectl(&["scale", "deployment", "nginx", "--replicas=1"]);
    cluster.wait_until("one pod and one node", || cluster.count("pods") == 1 && cluster.count("nodes") == 1);

    cluster.kubectl(&["rollout", "restart", "deployment", "nginx"]);
    cluster.kubectl(&["rollout", "status", "deployment", "nginx", "--timeout=90s"]);
    cluster.kubectl(&["rollout", "undo", "deployment", "nginx"]);
    cluster.kubectl(&["rollout", "status", "deployment", "nginx", "--timeout=90s"]);
    cluster.kubectl(&["delete", "deployment", "nginx"]);
    cluster.wait_until("nothing left", || {
        cluster.count("pods") == 0 && cluster.count("nodes") == 0 && cluster.count("rs") == 0
    });
    assert!(cluster.vm_pids().is_empty());
    let bill = cluster.isopod(&["cost", "--cluster", "e2e-web", "--by", "label", "app"]);
    assert!(bill.contains("nginx") && bill.contains("TOTAL"), "{bill}");
}

#[test]
fn a_container_gets_what_its_pod_says() {
    let Some(cluster) = Cluster::create("e2e-pod") else { return };
    cluster.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    cluster.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=word=sesame"]);
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "x"}}, "spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "first", "image": "busybox", "command": ["sh", "-c", "echo made > /shared/by-init"],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
            "containers": [{"name": "c", "image": "busybox", "workingDir": "/tmp",
                "command": ["sh", "-c"], "args": ["echo user=$(id -u) dir=$(pwd) env=$GREETING ip=$MY_IP; cat /settings/colour; echo; cat /shared/by-init; echo secret=$WORD; nproc; ps | wc -l; ls /var/run/secrets/kubernetes.io/serviceaccount; exit 7"],
                "env": [{"name": "GREETING", "value": "hello"}, {"name": "MY_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}}],
                "securityContext": {"runAsUser": 1000},
                "resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}},
                "volumeMounts": [{"name": "settings", "mountPath": "/settings"}, {"name": "shared", "mountPath": "/shared"}]}],
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "shared", "emptyDir": {}}]}}"#,
    );
    cluster.wait_for("pod/p", "{.status.phase}", "Failed");
    let log = cluster.kubectl(&["logs", "p"]);
    let address = cluster.field("pod/p", "{.status.podIP}");
    for part in
        [&format!("user=1000 dir=/tmp env=hello ip={address}"), "blue", "made", "secret=sesame", "token", "ca.crt"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(log.lines().any(|line| line == "2"), "the VM has two processors: {log}");
    assert_eq!(cluster.field("pod/p", "{.metadata.annotations.CapacityProvisioned}"), "2vCPU 4GB");
    assert_eq!(cluster.field("pod/p", "{.status.containerStatuses[0].state.terminated.exitCode}"), "7");
    cluster.wait_until("the microVM is gone", || cluster.vm_pids().is_empty());
}

#[test]
fn streams_reach_the_container() {
    let Some(cluster) = Cluster::create("e2e-streams") else { return };
    cluster.run_pod(
        "p",
        "Always",
        "trap 'exit 0' TERM; echo first; echo problem >&2; while [ ! -f /tmp/stop ]; do sleep 0.1; done; exit 1",
    );
    cluster.wait_for("pod/p", "{.status.phase}", "Running");
    cluster.wait_until("the log", || cluster.kubectl(&["logs", "p"]).contains("problem"));
    assert_eq!(cluster.kubectl(&["logs", "p", "--tail=2"]).lines().count(), 2);
    assert!(cluster.kubectl(&["logs", "p", "--timestamps"]).starts_with("20"));

    let code = cluster.try_kubectl(&["exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_eq!((code.status.code(), text(&code.stdout).as_str()), (Some(5), "out\n"));
    assert!(text(&code.stderr).contains("err"));
    let missing = cluster.try_kubectl(&["exec", "p", "--", "nosuchprogram"]);
    assert!(!missing.status.success());
    let mut cat = cluster.spawn_kubectl(&["exec", "-i", "p", "--", "sh", "-c", "tr a-z A-Z"]);
    cat.stdin.take().unwrap().write_all(b"through and back\n").unwrap();
    let mut answer = String::new();
    cat.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "THROUGH AND BACK\n");
    assert!(cat.wait().unwrap().success());

    let mut follow = cluster.spawn_kubectl(&["logs", "-f", "p"]);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    cluster.kubectl(&["exec", "p", "--", "touch", "/tmp/stop"]);
    cluster.wait_for("pod/p", "{.status.containerStatuses[0].restartCount}", "1");
    assert!(follow.wait().unwrap().success());
    assert!(cluster.kubectl(&["logs", "p", "--previous"]).contains("first"));
}

#[test]
fn ports_are_forwarded() {
    let Some(cluster) = Cluster::create("e2e-forward") else { return };
    cluster.kubectl(&["run", "web", "--image=nginx"]);
    cluster.wait_for("pod/web", "{.status.phase}", "Running");
    cluster.wait_until("the server in the pod", || {
        cluster.http(&cluster.field("pod/web", "{.status.podIP}")).contains("Isopod")
    });
    let mut forward = cluster.spawn_kubectl(&["port-forward", "web", ":80"]);
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let port: u16 = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let url = format!("127.0.0.1:{port}");
    cluster.wait_until("the page", || cluster.http(&url).contains("Isopod"));
    forward.kill().unwrap();
    forward.wait().unwrap();
}

#[test]
fn a_killed_server_loses_nothing() {
    let Some(cluster) = Cluster::create("e2e-crash") else { return };
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx", "--replicas=2"]);
    cluster.run_pod("talker", "Never", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done");
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "2");
    cluster.wait_for("pod/talker", "{.status.phase}", "Running");
    let address = cluster.field("pods", "{.items[?(@.metadata.labels.app==\"web\")].status.podIP}");
    let address = address.split(' ').next().unwrap().to_owned();
    cluster.wait_until("the page", || cluster.http(&address).contains("Isopod"));
    let vms = cluster.vm_pids();
    assert_eq!(vms.len(), 3);

    kill(cluster.server_pid());
    assert!(cluster.http(&address).contains("Isopod"), "pods serve without the server");
    cluster.isopod(&["start", "cluster", "--name", "e2e-crash"]);
    let mut after = cluster.vm_pids();
    after.sort_unstable();
    let mut before = vms.clone();
    before.sort_unstable();
    assert_eq!(after, before, "the same microVMs run on");
    cluster.wait_until("exec works", || cluster.try_kubectl(&["exec", "talker", "--", "true"]).status.success());
    assert!(cluster.http(&address).contains("Isopod"));
    assert_eq!(cluster.field("pod/talker", "{.status.containerStatuses[0].restartCount}"), "0");
    let log = cluster.kubectl(&["logs", "talker"]);
    let numbers: Vec<usize> = log.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(numbers.iter().enumerate().all(|(index, number)| index == *number), "no line is lost or doubled: {log}");
    let records = cluster.kubectl(&[
        "get",
        "usagerecords",
        "-o",
        "jsonpath={range .items[*]}{.spec.podName} {.spec.endTime}{'\\n'}{end}",
    ]);
    assert_eq!(records.lines().count(), 3, "nothing is billed twice: {records}");
    assert!(
        records.lines().all(|line| line.trim().split(' ').count() == 1),
        "nothing is closed while it runs: {records}"
    );
}

#[test]
fn a_killed_microvm_is_seen_and_the_restart_policy_acts() {
    let Some(cluster) = Cluster::create("e2e-vmm") else { return };
    cluster.run_pod("again", "Always", "sleep 1000");
    cluster.wait_for("pod/again", "{.status.phase}", "Running");
    cluster.vm_pids().into_iter().for_each(kill);
    cluster.wait_for("pod/again", "{.status.containerStatuses[0].restartCount}", "1");
    cluster.wait_for("pod/again", "{.status.containerStatuses[0].ready}", "true");
    assert_eq!(
        cluster.field("pod/again", "{.status.containerStatuses[0].lastState.terminated.reason}"),
        "ContainerStatusUnknown"
    );

    cluster.kubectl(&["delete", "pod", "again"]);
    cluster.run_pod("once", "Never", "sleep 1000");
    cluster.wait_for("pod/once", "{.status.phase}", "Running");
    cluster.vm_pids().into_iter().for_each(kill);
    cluster.wait_for("pod/once", "{.status.phase}", "Failed");
}

#[test]
fn probes_and_hooks_do_what_they_say() {
    let Some(cluster) = Cluster::create("e2e-probes") else { return };
    let alive = "test -f /shared/alive";
    let web = serde_json::json!({
        "name": "web", "image": "nginx", "ports": [{"name": "http", "containerPort": 80}],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        "startupProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 30},
        "livenessProbe": {"exec": {"command": ["sh", "-c", alive]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
        "lifecycle": {
            "postStart": {"exec": {"command": ["sh", "-c", "touch /shared/alive; echo $$ >> /shared/starts"]}},
            "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /shared/stops"]}},
        },
    });
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probed"},
        "spec": {"terminationGracePeriodSeconds": 5, "volumes": [{"name": "shared", "emptyDir": {}}], "containers": [web]}});
    cluster.apply(&pod.to_string());
    let status = |field: &str| format!("{{.status.containerStatuses[0].{field}}}");
    cluster.wait_for("pod/probed", &status("started"), "true");
    assert_eq!(cluster.kubectl(&["get", "pod/probed", "-o", &format!("jsonpath={}", status("ready"))]), "false");
    let run = |script: &str| cluster.kubectl(&["exec", "probed", "--", "sh", "-c", script]);
    run("echo yes > /usr/share/nginx/html/ready");
    cluster.wait_for("pod/probed", &status("ready"), "true");
    run("rm /usr/share/nginx/html/ready");
    cluster.wait_for("pod/probed", &status("ready"), "false");
    run("rm /shared/alive");
    cluster.wait_for("pod/probed", &status("restartCount"), "1");
    cluster.wait_for("pod/probed", &status("started"), "true");
    assert_eq!(run("wc -l < /shared/starts; cat /shared/stops").trim(), "2\nstopping");
    let events = cluster.kubectl(&["get", "events"]);
    for part in [
        "Readiness probe failed: HTTP probe failed with statuscode: 404",
        "Liveness probe failed: command exited with 1",
        "Container web failed liveness probe, will be restarted",
    ] {
        assert!(events.contains(part), "{part}: {events}");
    }
}

#[test]
fn what_cannot_run_says_why() {
    let Some(cluster) = Cluster::create("e2e-bad") else { return };
    let pod = |name: &str, container: serde_json::Value| {
        let mut container = container;
        container["name"] = "c".into();
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [container]}});
        cluster.apply(&pod.to_string());
    };
    pod("no-image", serde_json::json!({"image": "127.0.0.1:1/none:1"}));
    pod("no-command", serde_json::json!({"image": "busybox", "command": ["nosuchprogram"]}));
    pod("too-large", serde_json::json!({"image": "busybox", "resources": {"requests": {"cpu": "40"}}}));
    pod("no-room", serde_json::json!({"image": "busybox", "resources": {"requests": {"memory": "120Gi"}}}));
    pod(
        "greedy",
        serde_json::json!({"image": "busybox", "command": ["sh", "-c", "tail /dev/zero"], "resources": {"limits": {"memory": "32Mi"}}}),
    );
    pod("privileged", serde_json::json!({"image": "busybox", "securityContext": {"privileged": true}}));

    let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
    let ended = "{.status.containerStatuses[0].state.terminated.reason}";
    let unscheduled = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    cluster.wait_for("pod/no-image", waiting, "ImagePullBackOff");
    cluster.wait_for("pod/no-command", ended, "StartError");
    cluster.wait_for("pod/greedy", ended, "OOMKilled");
    cluster.wait_for("pod/too-large", unscheduled, "POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE");
    cluster.wait_for("pod/privileged", unscheduled, "POD_UNSUPPORTED_ON_FARGATE");
    cluster.wait_for("pod/no-room", unscheduled, "Unschedulable");
    let events = cluster.kubectl(&["get", "events"]);
    for part in [
        "executable file not found in $PATH",
        "Failed to pull image",
        "exceed the max Fargate configuration",
        "no host has room",
        "SecurityContext fields: Privileged",
    ] {
        assert!(events.contains(part), "{part}: {events}");
    }
    cluster.kubectl(&["create", "namespace", "elsewhere"]);
    cluster.kubectl(&["run", "stray", "-n", "elsewhere", "--image=busybox"]);
    cluster.wait_until("the nearest profile", || {
        cluster.kubectl(&["get", "events", "-n", "elsewhere"]).contains("the nearest is \"fp-default\"")
    });
}

#[test]
fn pods_reach_each_other_the_api_and_the_outside_but_not_the_host() {
    let Some(cluster) = Cluster::create("e2e-net") else { return };
    let Some(outside) = Outside::make() else { return };
    cluster.kubectl(&["run", "web", "--image=nginx"]);
    cluster.run_pod("client", "Always", "sleep 1000");
    cluster.wait_for("pod/web", "{.status.phase}", "Running");
    cluster.wait_for("pod/client", "{.status.phase}", "Running");
    let exec = |script: &str| text(&cluster.try_kubectl(&["exec", "client", "--", "sh", "-c", script]).stdout);
    let web = cluster.field("pod/web", "{.status.podIP}");
    let get =
        |address: &str, port: u16| exec(&format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}"));
    cluster.wait_until("pod to pod", || get(&web, 80).contains("Isopod"));
    assert!(exec("nc -w 5 10.100.0.1 443 </dev/null && echo open").contains("open"), "pod to API server");
    cluster.wait_until("pod to outside", || get(Outside::ADDRESS, 8000).contains("outside"));
    let blocked = exec(&format!("nc -w 2 {} 8001 </dev/null && echo open", Outside::HOST));
    assert!(!blocked.contains("open"), "a pod does not reach the host's own ports");
    let spoofed = exec(
        "ip addr add 192.168.96.99/32 dev eth0 && ping -c 1 -W 1 -I 192.168.96.99 169.254.1.1 >/dev/null && echo answered",
    );
    assert!(!spoofed.contains("answered"), "a pod speaks only under its own address");
    drop(outside);
}

/// A host outside the cluster: a network namespace with a web server, and a server on this host that pods must not reach.
struct Outside {
    server: std::process::Child,
    pages: std::path::PathBuf,
    _host: std::net::TcpListener,
}

impl Outside {
    const NAME: &str = "isopod-outside";
    const ADDRESS: &str = "198.51.100.2";
    const HOST: &str = "198.51.100.1";

    fn ip(args: &str) -> bool {
        Command::new("ip").args(args.split(' ')).status().unwrap().success()
    }

    fn make() -> Option<Self> {
        // One that an interrupted run left.
        Self::ip(&format!("netns del {}", Self::NAME));
        let name = Self::NAME;
        for args in [
            format!("netns add {name}"),
            format!("link add isoout type veth peer name eth0 netns {name}"),
            format!("addr add {}/24 dev isoout", Self::HOST),
            "link set isoout up".into(),
            format!("-n {name} addr add {}/24 dev eth0", Self::ADDRESS),
            format!("-n {name} link set eth0 up"),
        ] {
            if !Self::ip(&args) {
                eprintln!("SKIPPED: ip {args} is not possible here");
                return None;
            }
        }
        let pages = std::env::temp_dir().join(format!("isopod-outside-{}", std::process::id()));
        std::fs::create_dir_all(&pages).unwrap();
        std::fs::write(pages.join("index.html"), "outside\n").unwrap();
        let server = ["netns", "exec", name, "busybox", "httpd", "-f", "-p", "8000", "-h"];
        let server = Command::new("ip").args(server).arg(&pages).spawn().unwrap();
        // The kernel accepts connections for it; that is all a pod would need to tell that it got through.
        let host = std::net::TcpListener::bind("0.0.0.0:8001").unwrap();
        Some(Self { server, pages, _host: host })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
        drop(std::fs::remove_dir_all(&self.pages));
        Self::ip(&format!("netns del {}", Self::NAME));
    }
}

/// Everything of a cluster that could stay on a host.
fn traces(cluster: &Cluster) -> Vec<String> {
    let output = |program: &str, args: &[&str]| text(&Command::new(program).args(args).output().unwrap().stdout);
    let mut found: Vec<String> =
        output("ip", &["-o", "link"]).lines().filter_map(|line| Some(line.split(": ").nth(1)?.to_owned())).collect();
    found.extend(output("nft", &["list", "tables"]).lines().map(str::to_owned));
    found.extend(output("ip", &["route"]).lines().map(str::to_owned));
    found.extend(std::fs::read_to_string("/proc/mounts").unwrap().lines().map(str::to_owned));
    for directory in [cluster.state.join("clusters").join(&cluster.name), cluster.run.join(&cluster.name)] {
        found.extend(directory.exists().then(|| directory.display().to_string()));
    }
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&format!("/{}/", cluster.name)) || line.contains(&format!("--name {}", cluster.name)) {
            found.push(line);
        }
    }
    found.sort();
    found
}

#[test]
fn deletion_leaves_nothing() {
    let Some(cluster) = Cluster::place("e2e-gone") else { return };
    let before = traces(&cluster);
    drop(Cluster::create("e2e-gone"));
    let cluster = Cluster::create("e2e-gone").unwrap();
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx", "--replicas=2"]);
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "2");
    assert!(traces(&cluster).len() > before.len());
    cluster.isopod(&["delete", "cluster", "--name", "e2e-gone"]);
    assert_eq!(traces(&cluster), before);
}

fn check_refused(cluster: &Cluster, args: &[&str], expected: &[&str]) {
    let output = cluster.try_isopod(args);
    assert!(!output.status.success(), "{args:?}");
    let error = text(&output.stderr);
    for part in expected {
        assert!(error.contains(part), "{args:?}: {part}: {error}");
    }
}

#[test]
fn bad_commands_are_refused_with_a_hint_and_leave_nothing() {
    let Some(cluster) = Cluster::place("e2e-args") else { return };
    let file = cluster.state.join("bad.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    write(
        "apiVersion: eksctl.io/v1alpha5\nkind: ClusterConfig\nmetadata:\n  name: e2e-args\n  region: r\nfargateProfile: []\n",
    );
    check_refused(
        &cluster,
        &["create", "cluster", "-f", path],
        &["fargateProfile", "did you mean \"fargateProfiles\"", "bad.yaml"],
    );
    write(
        "apiVersion: eksctl.io/v1alpha5\nkind: ClusterConfig\nmetadata:\n  name: e2e-args\n  region: r\nfargateProfiles:\n  - name: fp\n",
    );
    check_refused(&cluster, &["create", "cluster", "-f", path], &["fargateProfiles[0].selectors"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let args = ["create", "cluster", "--name", "e2e-args", "--fargate", "--port", &port];
    check_refused(&cluster, &args, &["is in use", "hint:"]);
    check_refused(&cluster, &["create", "cluster", "--name", "not a name", "--fargate"], &["metadata.name"]);
    check_refused(&cluster, &["cost", "--cluster", "none"], &["hint:"]);
    assert!(!cluster.state.join("clusters/e2e-args").exists());
    std::fs::remove_file(&file).unwrap();
}
