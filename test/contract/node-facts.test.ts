/** What a node tells of its machine: each answer is held against the machine itself. */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { machine } from '#host/exec.ts'
import { ensureCertificate } from '#cluster/self-signed.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

let node: WholeNode
let at: string
const closing = new AsyncDisposableStack()

before(async () => {
  node = closing.use(await wholeNode())
  at = `/nodes/${node.settings.node}`
})
after(() => closing.disposeAsync())

const get = async <T>(path: string, params?: Record<string, unknown>) =>
  (await node.api('GET', `${at}/${path}`, params)).data as T

test('disks are those the kernel has, with the root file system on one that is in use', async () => {
  const disks = await get<{ devpath: string; size: number; mounted: number; used?: string }[]>('disks/list', {
    'include-partitions': 1,
  })
  for (const { devpath, size } of disks) {
    const sectors = Number(await readFile(`/sys/class/block/${devpath.slice(5)}/size`, 'utf8'))
    assert.equal(size, sectors * 512, devpath)
  }
  assert.ok(disks.some(({ mounted, used }) => mounted === 1 && used !== undefined))
  const unused = await get<{ used?: string }[]>('disks/list', { type: 'unused', skipsmart: 1 })
  assert.ok(unused.every(({ used }) => used === undefined))
})

test('a disk without a tool to ask it is no disk in good health', async () => {
  const hasTool = await stat('/usr/sbin/smartctl').then(
    () => true,
    () => false,
  )
  const asked = get('disks/smart', { disk: '/dev/no/such/disk' })
  await assert.rejects(asked, hasTool ? /No such device|Unable to detect|open device/ : /'smartctl' is not installed/)
})

test('PCI devices are those of the bus', async () => {
  const all = await get<{ id: string; vendor: string; class: string }[]>('hardware/pci', { 'pci-class-blacklist': '' })
  assert.deepEqual(
    all.map(({ id }) => id),
    (await readdir('/sys/bus/pci/devices')).toSorted((a, b) => (a < b ? -1 : 1)),
  )
  for (const { id, vendor } of all) {
    assert.equal(vendor, (await readFile(`/sys/bus/pci/devices/${id}/vendor`, 'utf8')).trim())
  }
  const usual = await get<{ id: string; class: string }[]>('hardware/pci', { verbose: 1 })
  assert.ok(usual.every((device) => !/^0x0[56b]/.test(device.class)))
  assert.deepEqual(await get('hardware/pci/0000:00:00.0/mdev'), [])
  assert.ok(Array.isArray(await get('hardware/usb')))
})

test('machine types and processors are those QEMU takes', async () => {
  const machines = await get<{ id: string; type: string; version: string }[]>('capabilities/qemu/machines')
  const { stdout } = await machine().run(['qemu-system-x86_64', '--version'])
  const version = /version (\d+\.\d+)/.exec(stdout)?.[1]
  assert.deepEqual(
    machines.filter((one) => one.version === version).map(({ id }) => id),
    [`pc-i440fx-${version}`, `pc-q35-${version}`],
  )
  const models = await get<{ name: string; vendor: string }[]>('capabilities/qemu/cpu')
  const vendors = new Map(models.map(({ name, vendor }) => [name, vendor]))
  assert.deepEqual(
    ['host', 'max', 'EPYC-Rome', 'Skylake-Server', 'qemu64'].map((name) => vendors.get(name)),
    ['default', 'default', 'AuthenticAMD', 'GenuineIntel', 'default'],
  )
  const flags = await get<{ name: string; 'supported-on'?: string[] }[]>('capabilities/qemu/cpu-flags')
  assert.deepEqual(flags.find(({ name }) => name === 'sse2')?.['supported-on'], [node.settings.node])
  assert.deepEqual(await get('capabilities/qemu/migration'), { 'has-dbus-vmstate': 0 })
})

test('packages are those dpkg knows, and their sources those of apt', async () => {
  const versions = await get<{ Package: string; Version: string }[]>('apt/versions')
  const { stdout } = await machine().run(['dpkg-query', '-W', '-f', '${Version}', 'qemu-system-x86'])
  assert.equal(versions.find(({ Package }) => Package === 'qemu-system-x86')?.Version, stdout)
  assert.equal(versions[0]?.Package, 'hakobune')
  const updates = await get<{ Package: string; OldVersion?: string; Version: string; Title: string }[]>('apt/update')
  const simulated = await machine().run(['apt-get', '-s', '-q', 'dist-upgrade'])
  assert.equal(updates.length, [...simulated.stdout.matchAll(/^Inst /gm)].length)
  const { files, digest } = await get<{ files: { path: string; repositories: unknown[] }[]; digest: string }>(
    'apt/repositories',
  )
  assert.match(digest, /^[0-9a-f]{64}$/)
  assert.ok(files.some(({ repositories }) => repositories.length > 0))
})

test('services are not said to be dead where nobody keeps them, and a shared machine is left alone', async () => {
  const services = await get<{ service: string; state: string }[]>('services')
  assert.ok(services.some(({ service }) => service === 'sshd'))
  const { state } = await get<{ state: string }>('services/sshd/state')
  const runsSystemd = await stat('/run/systemd/system').then(
    () => true,
    () => false,
  )
  assert.equal(state === 'unknown', !runsSystemd)
  const refusal = /belongs to the machine, which this node shares with others/
  await assert.rejects(node.api('POST', `${at}/services/sshd/stop`), refusal)
  await assert.rejects(node.api('POST', `${at}/status`, { command: 'reboot' }), refusal)
  await assert.rejects(node.api('PUT', `${at}/time`, { timezone: 'UTC' }), refusal)
})

test('the journal is read page by page, also where it is empty', async () => {
  const [first, ...lines] = await get<string[]>('journal', { lastentries: 5 })
  assert.equal(typeof first, 'string')
  assert.ok(lines.length <= 6)
  const { data, total } = await node.api('GET', `${at}/syslog`, { limit: 3, since: '2026-01-01' })
  const numbered = data as { n: number; t: string }[]
  assert.equal(numbered[0]?.n, 1)
  assert.ok(numbered.length <= 3 && typeof total === 'number')
})

test('certificates are those the API is served with', async () => {
  const directory = join(node.settings.stateDir, 'keys')
  const { certificate } = await ensureCertificate({ directory, node: node.settings.node })
  const [info] = await get<{ fingerprint: string; pem: string; san: string[]; notafter: number }[]>('certificates/info')
  const expected = new X509Certificate(certificate)
  assert.equal(info?.fingerprint, expected.fingerprint256)
  assert.ok(info?.san.includes('localhost'))
  assert.equal(info?.notafter, Math.floor(expected.validToDate.getTime() / 1000))
})

test('a subscription key is kept for those who read it back, and nothing depends on it', async () => {
  const { api } = node
  assert.equal((await get<{ status: string }>('subscription')).status, 'notfound')
  await api('PUT', `${at}/subscription`, { key: 'pve2c-0123456789' })
  await api('POST', `${at}/subscription`)
  const { status, key } = await get<{ status: string; key: string }>('subscription')
  assert.deepEqual([status, key], ['new', 'pve2c-0123456789'])
  await api('DELETE', `${at}/subscription`)
  assert.equal((await get<{ status: string }>('subscription')).status, 'notfound')
})

test('the report names what there is', async () => {
  const made = await node.api('POST', `${at}/qemu`, { vmid: 400, name: 'reported' })
  assert.equal(await node.ended(made.data), 'OK')
  const report = await get<string>('report')
  for (const part of ['reported', '==== uname -a ====', '==== storages ====']) assert.ok(report.includes(part), part)
})

test('a node does not ask itself on behalf of others, nor wake itself', async () => {
  for (const url of [
    'http://127.0.0.1/x',
    'http://[::1]/x',
    'http://169.254.169.254/latest',
    'http://localhost:8006/',
  ]) {
    await assert.rejects(get('query-url-metadata', { url }), /is not asked/)
  }
  await assert.rejects(node.api('POST', `${at}/wakeonlan`), /is local node, cannot wake my self!/)
  await assert.rejects(node.api('POST', '/nodes/elsewhere/wakeonlan'), /No wake on LAN MAC address|does not exist|such/)
})

test('the log of the cluster tells of tasks, newest first', async () => {
  const log = (await node.api('GET', '/cluster/log', { max: 2 })).data as { msg: string; user: string; time: number }[]
  assert.equal(log.length, 2)
  assert.match(log[0]?.msg ?? '', /^end task UPID:wholenode:.*:qmcreate:400:root@pam: OK$/)
  assert.match(log[1]?.msg ?? '', /^starting task UPID:wholenode:.*:qmcreate:400:root@pam:$/)
})

test('all guests start in their order and stop in the reverse of it', async () => {
  const { api, ended } = node
  const options = { memory: '32', onboot: '1', vga: 'none', kvm: '0' }
  const guests = [
    { vmid: 411, startup: 'order=2' },
    { vmid: 410, startup: 'order=1,up=1' },
    { vmid: 412, onboot: '0' },
  ]
  for (const guest of guests)
    assert.equal(await ended((await api('POST', `${at}/qemu`, { ...options, ...guest })).data), 'OK')
  const running = async () =>
    ((await api('GET', `${at}/qemu`)).data as { vmid: number; status: string }[])
      .filter(({ status }) => status === 'running')
      .map(({ vmid }) => vmid)
  const orderIn = async (upid: unknown) => {
    const path = `${at}/tasks/${encodeURIComponent(String(upid))}/log`
    const lines = (await api('GET', path, { limit: 0 })).data as { t: string }[]
    return lines.flatMap(({ t }) => /^VM (\d+) .*: done$/.exec(t)?.[1] ?? [])
  }
  const start = (await api('POST', `${at}/startall`)).data
  assert.equal(await ended(start), 'OK')
  assert.deepEqual(await orderIn(start), ['410', '411'])
  assert.deepEqual(await running(), [410, 411])

  assert.equal(await ended((await api('POST', `${at}/suspendall`, { vms: '410' })).data), 'OK')
  const { qmpstatus } = (await api('GET', `${at}/qemu/410/status/current`)).data as { qmpstatus: string }
  assert.equal(qmpstatus, 'paused')

  // Nothing in these guests listens to the power button.
  const stop = (await api('POST', `${at}/stopall`, { timeout: 1 })).data
  assert.equal(await ended(stop), 'OK')
  assert.deepEqual(await orderIn(stop), ['411', '410'])
  assert.deepEqual(await running(), [])
})

test('the traffic of guests is that of their taps', async () => {
  // Nothing is plugged in on this node.
  assert.deepEqual(await get('netstat'), [])
})
