// The life of a disk and the errors on the way, through Alibaba's client for every RPC service.
const { RPCClient } = require('@alicloud/pop-core');

const settings = JSON.parse(process.env.SETTINGS);
const region = { RegionId: 'cn-local' };

function client(changes = {}) {
  return new RPCClient({
    endpoint: `http://${settings.endpoint}`,
    apiVersion: '2014-05-26',
    accessKeyId: settings.key,
    accessKeySecret: settings.secret,
    ...changes,
  });
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.name, code: error.code, status: error.entry.response.statusCode };
  }
  return null;
}

async function until(ecs, disk, status, opts) {
  const deadline = Date.now() + 20000;
  for (;;) {
    const answer = await ecs.request('DescribeDisks', { ...region, DiskIds: JSON.stringify([disk]) }, opts);
    const found = answer.Disks.Disk[0] || { Status: 'gone' };
    if (found.Status === status) return found;
    if (Date.now() > deadline) throw new Error(`${disk} is ${found.Status}, not ${status}`);
    await new Promise((resume) => setTimeout(resume, 30));
  }
}

async function main() {
  const opts = { method: settings.method };
  const ecs = client();
  const said = { name: "it's (a) ä*b+c~d/e!", tags: [{ Key: 'wave', Value: '1' }, { Key: 'x y', Value: 'ö' }] };
  const order = { ...region, ZoneId: 'cn-local-a', DiskCategory: 'cloud_essd', PerformanceLevel: 'PL0', Size: 1 };
  const made = await ecs.request('CreateDisk', { ...order, Description: said.name, Tag: said.tags }, opts);
  const disk = await until(ecs, made.DiskId, 'Available', opts);
  await ecs.request('DeleteDisk', { DiskId: made.DiskId }, opts);
  await until(ecs, made.DiskId, 'gone', opts);

  const sts = client({ apiVersion: '2015-04-01' });
  const role = { RoleArn: 'acs:ram::1:role/r', RoleSessionName: 'node' };
  const { Credentials: key } = await sts.request('AssumeRole', role, opts);
  const temporary = client({
    accessKeyId: key.AccessKeyId,
    accessKeySecret: key.AccessKeySecret,
    securityToken: key.SecurityToken,
  });
  const regions = await temporary.request('DescribeRegions', {}, opts);

  process.stdout.write(JSON.stringify({
    sameDescription: disk.Description === said.name,
    tags: disk.Tags.Tag,
    regions: regions.Regions.Region.map((each) => each.RegionId),
    wrongSecret: await refusal(client({ accessKeySecret: 'guessed' }).request('DescribeRegions', {}, opts)),
    unknownKey: await refusal(client({ accessKeyId: 'NOBODY' }).request('DescribeRegions', {}, opts)),
    unknownAction: await refusal(ecs.request('MakeCoffee', {}, opts)),
    missing: await refusal(ecs.request('DescribeDisks', {}, opts)),
    oldVersion: await refusal(client({ apiVersion: '2013-01-10' }).request('DescribeRegions', {}, opts)),
  }));
}

main();
