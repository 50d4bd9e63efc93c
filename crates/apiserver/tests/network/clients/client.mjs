// What programs do with the JavaScript client: typed calls, patches, watches, informers, generic objects, streams.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const kc = new k8s.KubeConfig();
kc.loadFromDefault();
const core = kc.makeApiClient(k8s.CoreV1Api);
const apps = kc.makeApiClient(k8s.AppsV1Api);
const namespace = 'default';

async function typed() {
  const made = await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'm' }, data: { a: '1' } } });
  assert.ok(made.metadata.uid);
  const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
  const patched = await core.patchNamespacedConfigMap({ name: 'm', namespace, body: { data: { b: '2' } } }, merge);
  assert.deepEqual(patched.data, { a: '1', b: '2' });
  await assert.rejects(core.replaceNamespacedConfigMap({ name: 'm', namespace, body: made }), { code: 409 });
  await assert.rejects(core.readNamespacedConfigMap({ name: 'none', namespace }), { code: 404 });
  const labels = { app: 'd' };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'nginx' }] } };
  const spec = { replicas: 2, selector: { matchLabels: labels }, template };
  await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'd' }, spec } });
  const steps = [{ op: 'replace', path: '/spec/replicas', value: 4 }];
  const json = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch);
  const scale = await apps.patchNamespacedDeploymentScale({ name: 'd', namespace, body: steps }, json);
  assert.equal(scale.spec.replicas, 4);
}

async function watched() {
  const seen = [];
  const { metadata } = await core.listNamespacedConfigMap({ namespace });
  await new Promise((resolve, reject) => {
    const query = { resourceVersion: metadata.resourceVersion, allowWatchBookmarks: true };
    const each = (type, object) => {
      if (object.metadata.name === 'w') seen.push(type);
      if (type === 'DELETED') resolve();
    };
    new k8s.Watch(kc).watch(`/api/v1/namespaces/${namespace}/configmaps`, query, each, (error) => error && reject(error)).then(async () => {
      await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'w' } } });
      await core.deleteNamespacedConfigMap({ name: 'w', namespace });
    }).catch(reject);
  });
  assert.deepEqual(seen, ['ADDED', 'DELETED']);
}

async function informed() {
  const informer = k8s.makeInformer(kc, `/api/v1/namespaces/${namespace}/secrets`, () => core.listNamespacedSecret({ namespace }));
  const told = new Promise((resolve) => informer.on('add', (secret) => secret.metadata.name === 's' && resolve(secret)));
  await informer.start();
  await core.createNamespacedSecret({ namespace, body: { metadata: { name: 's' }, stringData: { key: 'value' } } });
  const secret = await told;
  assert.equal(Buffer.from(secret.data.key, 'base64').toString(), 'value');
  assert.equal(informer.get('s', namespace).metadata.name, 's');
  await informer.stop();
}

async function generic() {
  const objects = k8s.KubernetesObjectApi.makeApiClient(kc);
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'g', namespace }, data: { a: '1' } };
  for (const value of ['1', '2']) {
    map.data.a = value;
    const applied = await objects.patch(map, undefined, undefined, 'test', true, k8s.PatchStrategy.ServerSideApply);
    assert.equal(applied.data.a, value);
  }
  await objects.delete(map);
  await assert.rejects(objects.read(map), { code: 404 });
}

async function streamed() {
  const out = new PassThrough();
  const chunks = [];
  out.on('data', (chunk) => chunks.push(chunk));
  const status = await new Promise((resolve, reject) => {
    new k8s.Exec(kc).exec(namespace, 'p', 'main', ['echo', 'hello', 'you'], out, null, null, false, resolve).catch(reject);
  });
  assert.equal(status.status, 'Success');
  assert.equal(Buffer.concat(chunks).toString(), 'hello you\n');
  assert.match(await core.readNamespacedPodLog({ name: 'p', namespace }), /line 3/);
}

for (const step of [typed, watched, informed, generic, streamed]) {
  await step();
}
console.log('all is well');
process.exit(0);
