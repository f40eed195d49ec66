// The life of buckets and objects through Alibaba's client of OSS.
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');
const OSS = require('ali-oss');

const settings = JSON.parse(process.env.SETTINGS);

function client(changes = {}) {
  return new OSS({
    endpoint: `http://${settings.endpoint}`,
    region: 'oss-cn-local',
    accessKeyId: settings.key,
    accessKeySecret: settings.secret,
    bucket: settings.bucket,
    authorizationV4: settings.v4,
    retryMax: 0,
    ...changes,
  });
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return { code: error.code, status: error.status };
  }
  return null;
}

// The client makes no URLs for an endpoint that is an address, and bucket.localhost is not known to every resolver.
function fetchUrl(text) {
  const url = new URL(text);
  const order = { host: '127.0.0.1', port: url.port, path: url.pathname + url.search, headers: { Host: url.host } };
  return new Promise((resolve, reject) => {
    http.get(order, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve(Buffer.concat(chunks).toString()));
    }).on('error', reject);
  });
}

async function main() {
  const oss = client();
  const key = "folder/a b+c é~'(*)&%.bin";
  const found = {};
  await oss.putBucket(settings.bucket);
  found.buckets = (await oss.listBuckets()).buckets.map((each) => each.name);
  await oss.put(key, Buffer.from('content'), { meta: { owner: 'me' }, mime: 'text/x' });
  const got = await oss.get(key);
  found.content = got.content.toString();
  const head = await oss.head(key);
  found.head = { owner: head.meta.owner, type: head.res.headers['content-type'] };
  found.range = (await oss.get(key, { headers: { Range: 'bytes=1-3' } })).content.toString();
  await oss.copy('copy', key);
  await oss.append('log', Buffer.from('one'));
  await oss.append('log', Buffer.from('two'), { position: 3 });
  found.log = (await oss.get('log')).content.toString();
  found.late = await refusal(oss.append('log', Buffer.from('x'), { position: 1 }));
  found.once = await refusal(oss.put(key, Buffer.from('x'), { headers: { 'x-oss-forbid-overwrite': 'true' } }));
  found.names = (await oss.list({ 'max-keys': 10 })).objects.map((each) => each.name);
  const listed = await oss.listV2({ delimiter: '/', 'max-keys': '10' });
  found.folders = listed.prefixes;
  const named = client({ endpoint: `http://localhost:${settings.endpoint.split(':')[1]}` });
  const url = settings.v4
    ? await named.signatureUrlV4('GET', 60, {}, key)
    : named.signatureUrl(key, { expires: 60 });
  found.byUrl = await fetchUrl(url);

  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'ali-oss-')), 'large');
  const large = Buffer.alloc(350 * 1024, 'large ');
  fs.writeFileSync(file, large);
  await oss.multipartUpload('large', file, { partSize: 100 * 1024, parallel: 2 });
  fs.rmSync(path.dirname(file), { recursive: true });
  found.large = (await oss.get('large')).content.equals(large);
  found.uploads = ((await oss.listUploads({ 'max-uploads': 10 })).uploads || []).length;
  await oss.putACL(key, 'public-read');
  found.acl = (await oss.getACL(key)).acl;
  found.missing = await refusal(oss.get('not there'));
  found.wrongSecret = await refusal(client({ accessKeySecret: 'guessed' }).get(key));
  found.notEmpty = await refusal(oss.deleteBucket(settings.bucket));
  found.deleted = (await oss.deleteMulti([key, 'copy', 'log', 'large'])).deleted.map((each) => each.Key || each);

  const temporary = client({
    accessKeyId: settings.temporary.key,
    accessKeySecret: settings.temporary.secret,
    stsToken: settings.temporary.token,
  });
  await temporary.put('mine', Buffer.from('x'));
  found.denied = await refusal(temporary.put('theirs', Buffer.from('x')));
  await oss.delete('mine');
  await oss.deleteBucket(settings.bucket);
  process.stdout.write(JSON.stringify(found));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
