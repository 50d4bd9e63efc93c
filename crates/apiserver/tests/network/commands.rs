//! What people type, with every kubectl that is there: each command, and what it must say.

use serde_json::json;

use crate::site::{Said, Site};

/// One command.
struct Case {
    line: &'static str,
    input: String,
    /// Succeeds.
    succeeds: bool,
    /// What it must say, on either stream, with white space and ages made even.
    part: String,
    /// It says nothing else on standard output.
    whole: bool,
    /// Not for 1.20.
    is_new: bool,
}

impl Case {
    fn not_old(self) -> Self {
        Self { is_new: true, ..self }
    }

    fn reading(mut self, input: &str) -> Self {
        self.input = input.into();
        self
    }

    async fn check(&self, site: &Site) {
        let words = words(self.line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = site.kubectl_with(&words, &self.input).await;
        self.compare(site.client.name, &said);
    }

    fn compare(&self, client: &str, said: &Said) {
        let line = self.line;
        assert_eq!(said.code == 0, self.succeeds, "{client} {line}: {said:?}");
        let (out, wanted) = (even(&said.out), even(&self.part));
        if self.whole {
            assert_eq!(out, wanted, "{client} {line}");
        } else {
            let all = format!("{out}\n{}", even(&said.err));
            assert!(all.contains(&wanted), "{client} {line}: wanted {wanted:?}, got {all}");
        }
    }
}

/// It succeeds and says this among other things.
fn says(line: &'static str, part: &str) -> Case {
    Case { line, input: String::new(), succeeds: true, part: part.into(), whole: false, is_new: false }
}

/// It succeeds and prints exactly this.
fn prints(line: &'static str, whole: &str) -> Case {
    Case { whole: true, ..says(line, whole) }
}

/// It fails and says this.
fn refuses(line: &'static str, part: &str) -> Case {
    Case { succeeds: false, ..says(line, part) }
}

/// A line's words; single quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

/// One blank between words, `AGE` for every age, no empty lines.
fn even(text: &str) -> String {
    let is_age = |word: &str| {
        let units = |character: char| "smhdy".contains(character);
        word.starts_with(|first: char| first.is_ascii_digit())
            && word.ends_with(units)
            && word.chars().all(|character| character.is_ascii_digit() || units(character))
    };
    let line = |line: &str| -> String {
        line.split_whitespace().map(|word| if is_age(word) { "AGE" } else { word }).collect::<Vec<_>>().join(" ")
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

async fn check_all(cases: &[Case], site: &Site) {
    for case in cases.iter().filter(|case| !case.is_new || !site.client.is_old) {
        case.check(site).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_explanations() {
    let cases = [
        says("version", "v1.36."),
        says("config current-context", "test"),
        says("cluster-info", "is running at"),
        says("api-resources", "deployments deploy apps/v1 true Deployment"),
        says("api-resources --api-group=isopod.dev -o name", "fargateprofiles.isopod.dev"),
        says("api-resources --namespaced=false --verbs=list -o name", "nodes"),
        says("api-versions", "isopod.dev/v1alpha1"),
        says("explain deployment.spec.replicas", "replicas <integer>"),
        says("explain pods.spec.containers.image", "image <string>"),
        says("explain pod.spec --recursive", "imagePullPolicy"),
        says("explain fargateprofile.spec.selectors", "namespace"),
        refuses("explain pod.spec.nothing", "field \"nothing\" does not exist"),
        says("get --raw /readyz", "ok"),
        says("auth can-i delete pods", "yes"),
        refuses("auth can-i delete pods --as=nobody", "no"),
        says("auth can-i --list", "*.*"),
        says("auth whoami", "kubernetes-admin").not_old(),
        says("create token default", "ey").not_old(),
        refuses("get nothings", "the server doesn't have a resource type \"nothings\""),
    ];
    for site in Site::for_each_kubectl().await {
        check_all(&cases, &site).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_look_change_delete() {
    let cases = [
        says("get namespaces", "kube-system Active AGE"),
        says("create namespace shop", "namespace/shop created"),
        says("create configmap c --from-literal=a=b -n shop", "configmap/c created"),
        prints("get configmap c -n shop -o jsonpath={.data.a}", "b"),
        says("get configmaps -A", "shop c 1 AGE"),
        says("create secret generic s --from-literal=k=v", "secret/s created"),
        prints("get secrets", "NAME TYPE DATA AGE\ns Opaque 1 AGE"),
        says("create serviceaccount robot", "serviceaccount/robot created"),
        says("create deployment web --image=nginx", "deployment.apps/web created"),
        says("scale deployment web --replicas=2", "deployment.apps/web scaled"),
        prints("get deploy web --subresource=scale", "NAME DESIRED AVAILABLE AGE\nweb 2 0 AGE").not_old(),
        prints("get deployments", "NAME READY UP-TO-DATE AVAILABLE AGE\nweb 0/2 0 0 AGE"),
        prints(
            "get deploy -o wide",
            "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR\nweb 0/2 0 0 AGE nginx nginx app=web",
        ),
        says("get deploy web -o yaml", "replicas: 2"),
        says("get deploy web -o json", "\"replicas\": 2"),
        prints("get deploy web -o custom-columns=N:.metadata.name,R:.spec.replicas", "N R\nweb 2"),
        prints("get deploy web -o go-template={{.spec.replicas}}", "2"),
        prints("get deploy,sa -o name", "deployment.apps/web\nserviceaccount/default\nserviceaccount/robot"),
        says("describe deployment web", "StrategyType: RollingUpdate"),
        says("describe deployment web", "Replicas: 2 desired"),
        says("set image deployment/web nginx=busybox", "deployment.apps/web image updated"),
        says("label deployment web tier=front", "deployment.apps/web labeled"),
        refuses("label deployment web tier=back", "already has a value (front)"),
        says("label deployment web tier=back --overwrite", "deployment.apps/web labeled"),
        prints("get deployments -l tier=back -o name", "deployment.apps/web"),
        prints("get deployments -L tier", "NAME READY UP-TO-DATE AVAILABLE AGE TIER\nweb 0/2 0 0 AGE back"),
        says("get deployments --show-labels", "app=web,tier=back"),
        says("annotate deployment web note=x", "deployment.apps/web annotated"),
        says("annotate deployment web note-", "deployment.apps/web annotated"),
        says("expose deployment web --port=80", "service/web exposed"),
        says("get service web", "web ClusterIP 10.100."),
        says("describe service web", "TargetPort: 80/TCP"),
        says("create role reader --verb=get --resource=pods", "role.rbac.authorization.k8s.io/reader created"),
        says("create rolebinding b --role=reader --user=ann", "rolebinding.rbac.authorization.k8s.io/b created"),
        prints("get rolebindings b -o wide", "NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS\nb Role/reader AGE ann"),
        says("auth can-i get pods --as=ann", "yes"),
        says("get clusterroles", "cluster-admin"),
        says("get events", "No resources found"),
        says("delete deployment web", "deployment.apps \"web\" deleted"),
        says("delete configmap --all -n shop", "configmap \"c\" deleted"),
        refuses("get deployment web", "deployments.apps \"web\" not found"),
        refuses("delete deployment web", "deployments.apps \"web\" not found"),
        says("delete deployment web --ignore-not-found", ""),
    ];
    for site in Site::for_each_kubectl().await {
        check_all(&cases, &site).await;
    }
}

const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: nginx, ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
";

#[tokio::test(flavor = "multi_thread")]
async fn apply_edit_patch_replace_diff() {
    let with = |from: &str, to: &str| MANIFEST.replace(from, to);
    let (three, four) = (with("replicas: 1", "replicas: 3"), with("replicas: 1", "replicas: 4"));
    let side = r#"patch deploy web -p {"spec":{"template":{"spec":{"containers":[{"name":"side","image":"x"}]}}}}"#;
    let cases = [
        says("apply -f - --dry-run=server", "deployment.apps/web created (server dry run)").reading(MANIFEST),
        refuses("get deploy web", "not found"),
        prints("apply -f -", "deployment.apps/web created\nservice/web created").reading(MANIFEST),
        prints("apply -f -", "deployment.apps/web unchanged\nservice/web unchanged").reading(MANIFEST),
        prints("diff -f -", "").reading(MANIFEST),
        refuses("diff -f -", "+ replicas: 4").reading(&four),
        prints("apply -f -", "deployment.apps/web configured\nservice/web unchanged").reading(&three),
        prints("get deploy web -o jsonpath={.spec.replicas}", "3"),
        says("apply view-last-applied deploy/web", "replicas: 3"),
        refuses("apply -f -", "unknown field").reading(&with("replicas: 1", "replica: 3")),
        refuses("apply -f -", "spec.selector").reading(&with("app: web", "app: other")),
        says(side, "deployment.apps/web patched"),
        prints("get deploy web -o jsonpath={.spec.template.spec.containers[*].name}", "side main"),
        says(
            r#"patch deploy web --type=json -p [{"op":"remove","path":"/spec/template/spec/containers/0"}]"#,
            "deployment.apps/web patched",
        ),
        prints("get deploy web -o jsonpath={.spec.template.spec.containers[*].name}", "main"),
        refuses(
            r#"patch deploy web --type=json -p [{"op":"test","path":"/kind","value":"X"}]"#,
            "The request is invalid",
        ),
        says(r#"patch deploy web --type=merge -p {"metadata":{"labels":{"a":"b"}}}"#, "deployment.apps/web patched"),
        says(r#"patch deploy web --type=merge -p {"metadata":{"labels":{"a":"b"}}}"#, "(no change)"),
        says("replace -f -", "deployment.apps/web replaced").reading(MANIFEST),
        prints("get deploy web -o jsonpath={.spec.replicas}{.metadata.labels}", "1"),
        says("edit deployment web", "deployment.apps/web edited"),
        prints("get deploy web -o jsonpath={.spec.replicas}", "7"),
        says("edit deployment web", "Edit cancelled, no changes made"),
        says("create -f -", "configmap/gen-")
            .reading(r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}}"#),
        says("delete -f -", "service \"web\" deleted").reading(MANIFEST),
    ];
    for site in Site::for_each_kubectl().await {
        let editor = site.directory.path().join("editor");
        std::fs::write(&editor, "sed -i 's/replicas: 1/replicas: 7/' \"$1\"\n").unwrap();
        check_all(&cases, &site).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply() {
    let with = |from: &str, to: &str| MANIFEST.replace(from, to);
    let three = with("replicas: 1", "replicas: 3");
    let without = three.replace("  replicas: 3\n", "");
    let (applied, web) = ("deployment.apps/web serverside-applied", "deploy web -o jsonpath={.spec.replicas}");
    let get: &'static str = format!("get {web}").leak();
    let cases = [
        says("apply --server-side -f - --dry-run=server", applied).reading(MANIFEST),
        refuses("get deploy web", "not found"),
        says("apply --server-side -f -", applied).reading(MANIFEST),
        prints("get deploy web -o jsonpath={.metadata.managedFields[*].manager}", "kubectl"),
        says("get deploy web -o yaml --show-managed-fields", "f:replicas: {}").not_old(),
        prints("diff --server-side -f -", "").reading(MANIFEST),
        refuses("diff --server-side -f -", "+ replicas: 3").reading(&three),
        says("apply --server-side -f -", applied).reading(&three),
        prints(get, "3"),
        says("scale deploy web --replicas=5", "scaled"),
        refuses("apply --server-side -f -", "conflict with \"kubectl\"").reading(&three),
        refuses("apply --server-side -f - --field-manager=me", ".spec.replicas").reading(&three),
        prints(get, "5"),
        says("apply --server-side -f - --force-conflicts", applied).reading(&three),
        prints(get, "3"),
        // Nobody else owns it: it goes, and the default comes.
        says("apply --server-side -f -", applied).reading(&without),
        prints(get, "1"),
        refuses("apply --server-side -f -", ".spec.replica: field not declared in schema")
            .reading(&with("replicas: 1", "replica: 3"))
            .not_old(),
        says("delete -f -", "service \"web\" deleted").reading(MANIFEST),
        // From client-side apply, without conflict, and what is left out then goes.
        says("apply -f -", "deployment.apps/web created").reading(&three),
        says("apply --server-side -f -", applied).reading(&three),
        says("apply --server-side -f -", applied).reading(&without),
        prints(get, "1").not_old(),
        says("get deploy web -o jsonpath={.metadata.managedFields[*].operation}", "Apply"),
    ];
    for site in Site::for_each_kubectl().await {
        check_all(&cases, &site).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_nodes() {
    let cases = [
        prints("get pods", "NAME READY STATUS RESTARTS AGE\np 1/1 Running 0 AGE\nwaiting 0/1 Pending 0 AGE"),
        prints(
            "get pod p -o wide",
            "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES\n\
             p 1/1 Running 0 AGE 10.0.0.1 node-1 <none> <none>",
        ),
        prints("get pod p --no-headers -o custom-columns=N:.spec.nodeName", "node-1"),
        prints("get pods --field-selector=spec.nodeName=node-1 -o name", "pod/p"),
        says("get pods --field-selector=spec.nodeName=other", "No resources found"),
        prints("get nodes", "NAME STATUS ROLES AGE VERSION\nnode-1 Ready <none> AGE v1.36.2-test"),
        says("get nodes -o wide", "INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME"),
        says("describe pod p", "Node: node-1"),
        says("describe pod p", "Normal Pulled AGE kubelet it was there"),
        says("describe node node-1", "default p 0 (0%) 0 (0%)"),
        prints("get events", "LAST SEEN TYPE REASON OBJECT MESSAGE\nAGE Normal Pulled pod/p it was there"),
        prints(
            "get events -o wide",
            "LAST SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST SEEN COUNT NAME\n\
             AGE Normal Pulled pod/p spec.containers{main} kubelet, node-1 it was there AGE 1 p.1",
        ),
        says("events", "Normal Pulled Pod/p it was there").not_old(),
        says("wait --for=condition=Ready pod/p --timeout=5s", "pod/p condition met"),
        refuses("wait --for=condition=Gone pod/p --timeout=1s", "timed out waiting"),
        says("cordon node-1", "node/node-1 cordoned"),
        says("get nodes", "Ready,SchedulingDisabled"),
        says("taint node node-1 a=b:NoSchedule", "node/node-1 tainted"),
        prints("exec p -- echo hello", "hello"),
        says("logs p", "node-1 p/main"),
        says("logs p --previous", "the run before"),
        prints("logs waiting", ""),
        refuses("exec waiting -- true", "does not have a host assigned"),
        says("delete pod waiting", "pod \"waiting\" deleted"),
        says("delete pod p --wait=false", "pod \"p\" deleted"),
        prints("get pod p", "NAME READY STATUS RESTARTS AGE\np 1/1 Terminating 0 AGE"),
        says("delete pod p --force --grace-period=0", "pod \"p\" force deleted"),
        refuses("get pod p", "pods \"p\" not found"),
        says("delete node node-1", "node \"node-1\" deleted"),
    ];
    for site in Site::for_each_kubectl().await {
        furnish(&site).await;
        check_all(&cases, &site).await;
    }
}

/// A node, a pod that runs on it with an event about it, and a pod without a node.
async fn furnish(site: &Site) {
    site.running_pod("p", &["main"]).await;
    let waiting = json!({"metadata": {"name": "waiting"}, "spec": {"containers": [{"name": "main", "image": "x"}]}});
    site.post("/api/v1/namespaces/default/pods", waiting).await;
    site.request("PATCH", "/api/v1/namespaces/default/pods/waiting", "application/merge-patch+json", json!({})).await;
    site.post("/api/v1/nodes", json!({"metadata": {"name": "node-1"}})).await;
    let status = json!({
        "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.2-test"},
        "capacity": {"cpu": "2", "memory": "4Gi"}, "allocatable": {"cpu": "2", "memory": "4Gi"},
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
    });
    site.status("/api/v1/nodes/node-1", status).await;
    let pod = site.request("GET", "/api/v1/namespaces/default/pods/p", "application/json", json!(null)).await;
    let now = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap().to_string();
    let event = json!({
        "metadata": {"name": "p.1"}, "type": "Normal", "reason": "Pulled", "message": "it was there\n", "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "kubelet", "host": "node-1"},
        "involvedObject": {
            "kind": "Pod", "namespace": "default", "name": "p", "uid": pod["metadata"]["uid"],
            "fieldPath": "spec.containers{main}",
        },
    });
    site.post("/api/v1/namespaces/default/events", event).await;
}
