"""What programs do with the Python client: typed and dynamic, watches, custom kinds, streams, leader election."""

import os
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import stream

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def typed():
    made = core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="m"), data={"a": "1"}))
    assert made.metadata.uid and made.data == {"a": "1"}
    core.patch_namespaced_config_map("m", "default", {"data": {"b": "2"}})
    found = core.read_namespaced_config_map("m", "default")
    assert found.data == {"a": "1", "b": "2"}, found.data
    found.data = {"c": "3"}
    core.replace_namespaced_config_map("m", "default", found)
    stale = made
    stale.data = {}
    try:
        core.replace_namespaced_config_map("m", "default", stale)
        raise AssertionError("an old version was accepted")
    except ApiException as error:
        assert error.status == 409, error
    labels = {"app": "d"}
    container = client.V1Container(name="c", image="nginx", resources=client.V1ResourceRequirements(requests={"cpu": "100m"}))
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container]))
    spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
    apps.create_namespaced_deployment("default", client.V1Deployment(metadata=client.V1ObjectMeta(name="d"), spec=spec))
    scale = apps.patch_namespaced_deployment_scale("d", "default", {"spec": {"replicas": 5}})
    assert scale.spec.replicas == 5
    listed = apps.list_namespaced_deployment("default", label_selector="", field_selector="metadata.name=d")
    assert [item.spec.replicas for item in listed.items] == [5]
    assert client.VersionApi().get_code().major == "1"


def watches():
    seen = []
    start = core.list_namespaced_config_map("default").metadata.resource_version

    def changes():
        core.create_namespaced_config_map("default", {"metadata": {"name": "w"}})
        core.patch_namespaced_config_map("w", "default", {"data": {"x": "y"}})
        core.delete_namespaced_config_map("w", "default")

    threading.Thread(target=changes).start()
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, "default", resource_version=start, timeout_seconds=60):
        if event["object"].metadata.name == "w":
            seen.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == ["ADDED", "MODIFIED", "DELETED"], seen


def dynamically():
    api = dynamic.DynamicClient(client.ApiClient())
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "1"}}
    for value in ("1", "2"):
        body["data"]["a"] = value
        applied = api.server_side_apply(maps, body=body, name="s", namespace="default", field_manager="test")
        assert applied.data.a == value
    assert [entry.manager for entry in applied.metadata.managedFields] == ["test"]
    maps.delete(name="s", namespace="default")
    try:
        maps.get(name="s", namespace="default")
        raise AssertionError("a deleted object was found")
    except NotFoundError:
        pass


def custom():
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "racks", "kind": "Rack", "singular": "rack"}
    definition = {"metadata": {"name": "racks.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}}
    client.ApiextensionsV1Api().create_custom_resource_definition(definition)
    objects = client.CustomObjectsApi()
    rack = {"apiVersion": "example.com/v1", "kind": "Rack", "metadata": {"name": "r"}, "spec": {"size": 42}}
    for _ in range(200):
        try:
            objects.create_namespaced_custom_object("example.com", "v1", "default", "racks", rack)
            break
        except ApiException as error:
            assert error.status == 404, error
            time.sleep(0.05)
    found = objects.get_namespaced_custom_object("example.com", "v1", "default", "racks", "r")
    assert found["spec"] == {"size": 42}
    try:
        objects.patch_namespaced_custom_object("example.com", "v1", "default", "racks", "r", {"spec": {"size": "big"}})
        raise AssertionError("a text was accepted as a number")
    except ApiException as error:
        assert error.status == 422, error


def streams():
    said = stream(core.connect_get_namespaced_pod_exec, "p", "default", container="main", command=["echo", "hello", "you"],
                  stderr=True, stdin=False, stdout=True, tty=False)
    assert said == "hello you\n", said
    assert "line 3" in core.read_namespaced_pod_log("p", "default")


def elected():
    leads = threading.Event()
    lock = ConfigMapLock("leader", "default", "me")
    settings = electionconfig.Config(lock, lease_duration=17, renew_deadline=15, retry_period=5,
                                     onstarted_leading=leads.set, onstopped_leading=lambda: None)
    threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()
    assert leads.wait(60), "nobody was elected"
    record = core.read_namespaced_config_map("leader", "default").metadata.annotations
    assert '"holderIdentity": "me"' in record["control-plane.alpha.kubernetes.io/leader"], record


for step in (typed, watches, dynamically, custom, streams, elected):
    step()
print("all is well", flush=True)
# The elected one would lead for ever.
os._exit(0)
