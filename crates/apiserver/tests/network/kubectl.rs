//! The real kubectl, doing what people do with it.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn create_look_change_delete() {
    let site = Site::open().await;
    // Command, something it must say.
    let table = [
        ("version", "Server Version: v1.36"),
        ("cluster-info", "is running at"),
        ("api-resources", "deployments                         deploy"),
        ("api-versions", "apps/v1"),
        ("get namespaces", "kube-system       Active"),
        ("create namespace shop", "namespace/shop created"),
        ("create configmap c --from-literal=a=b -n shop", "configmap/c created"),
        ("get configmap c -n shop -o jsonpath={.data.a}", "b"),
        ("create secret generic s --from-literal=k=v", "secret/s created"),
        ("create serviceaccount robot", "serviceaccount/robot created"),
        ("create token robot", "ey"),
        ("create deployment web --image=nginx --replicas=2", "deployment.apps/web created"),
        ("get deployments", "web    0/2"),
        ("get deploy web -o yaml", "replicas: 2"),
        ("describe deployment web", "StrategyType:           RollingUpdate"),
        ("scale deployment web --replicas=5", "deployment.apps/web scaled"),
        ("get deploy web -o wide", "nginx"),
        ("set image deployment/web nginx=busybox", "deployment.apps/web image updated"),
        ("label deployment web tier=front", "deployment.apps/web labeled"),
        ("annotate deployment web note=x", "deployment.apps/web annotated"),
        ("get deployments -l tier=front -o name", "deployment.apps/web"),
        ("expose deployment web --port=80", "service/web exposed"),
        ("get service web", "ClusterIP   10.100."),
        ("rollout restart deployment web", "deployment.apps/web restarted"),
        ("explain deployment.spec.replicas", "replicas"),
        ("explain pod.spec.containers --recursive", "imagePullPolicy"),
        ("auth can-i delete pods", "yes"),
        ("auth can-i delete pods --as=nobody", "no"),
        ("auth whoami", "kubernetes-admin"),
        ("create role reader --verb=get --resource=pods", "role.rbac.authorization.k8s.io/reader created"),
        ("create rolebinding b --role=reader --user=ann", "rolebinding.rbac.authorization.k8s.io/b created"),
        ("auth can-i get pods --as=ann", "yes"),
        ("get clusterroles", "cluster-admin"),
        ("delete deployment web", "deployment.apps \"web\" deleted"),
        ("delete configmap --all -n shop", "configmap \"c\" deleted"),
        ("get --raw /readyz", "ok"),
    ];
    for (line, part) in table {
        let said = site.kubectl(line).await;
        let refused_on_purpose = line.ends_with("--as=nobody");
        assert!((said.code == 0) != refused_on_purpose, "kubectl {line}: {said:?}");
        assert!(said.out.contains(part), "kubectl {line}: wanted {part:?}, got {said:?}");
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
async fn apply_is_idempotent_and_strict() {
    let site = Site::open().await;
    let apply = ["apply", "-f", "-"];
    let said = site.kubectl_with(&apply, MANIFEST).await;
    assert!(said.out.contains("deployment.apps/web created") && said.out.contains("service/web created"), "{said:?}");
    let said = site.kubectl_with(&apply, MANIFEST).await;
    assert!(
        said.out.contains("deployment.apps/web unchanged") && said.out.contains("service/web unchanged"),
        "{said:?}"
    );
    let said = site.kubectl_with(&apply, &MANIFEST.replace("replicas: 1", "replicas: 3")).await;
    assert!(said.out.contains("deployment.apps/web configured"), "{said:?}");
    site.says("get deploy web -o jsonpath={.spec.replicas}", "3").await;
    let said = site.kubectl_with(&apply, &MANIFEST.replace("replicas: 1", "replica: 3")).await;
    assert!(said.code != 0 && said.err.contains("unknown field \"spec.replica\""), "{said:?}");
    let said = site.kubectl_with(&["diff", "-f", "-"], &MANIFEST.replace("replicas: 1", "replicas: 4")).await;
    assert!(said.out.contains("+  replicas: 4") || said.err.contains("diff"), "{said:?}");
    let said = site.kubectl_with(&["apply", "--server-side", "-f", "-"], MANIFEST).await;
    assert!(said.code != 0 && said.err.contains("server-side apply is not supported"), "{said:?}");
    let said = site.kubectl_with(&["delete", "-f", "-"], MANIFEST).await;
    assert!(said.out.contains("service \"web\" deleted"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_show_changes_as_they_happen() {
    let site = Site::open().await;
    let mut child = site.command(&["get", "configmaps", "-w", "--no-headers"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    site.says("create configmap one --from-literal=a=b", "created").await;
    let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(line.starts_with("one"), "{line}");
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_described_and_deleted() {
    let site = Site::open().await;
    site.running_pod("p", &["main"]).await;
    site.says("get pods -o wide", "node-1").await;
    site.says("describe pod p", "Node:             node-1").await;
    site.says("delete pod p --wait=false", "pod \"p\" deleted").await;
    site.says("get pod p", "Terminating").await;
    site.says("delete pod p --force --grace-period=0", "deleted").await;
    let said = site.kubectl("get pod p").await;
    assert!(said.err.contains("pods \"p\" not found"), "{said:?}");
}
