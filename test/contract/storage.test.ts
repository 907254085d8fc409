/** Files from the web, archives of machines, copies and retention, as clients ask a whole node for them. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { ovfText } from '../fixtures/ovf.ts'
import { type SmallWeb, smallWeb } from '../fixtures/small-web.ts'
import { callerOver } from './caller.ts'
import type { Caller } from './samples.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const host = machine()
const bytes = randomBytes(200 * KiB)
const sha256 = createHash('sha256').update(bytes).digest('hex')
const closing = new AsyncDisposableStack()
let web: SmallWeb
let node: WholeNode
let at: string

before(async () => {
  web = closing.use(await smallWeb(bytes))
  // The owner lets his node ask 127.0.0.1, but not 127.0.0.2.
  node = closing.use(await wholeNode({ fetchNetworks: ['127.0.0.1'] }))
  at = `/nodes/${node.settings.node}`
})
after(() => closing.disposeAsync())

const storage = () => `${at}/storage/local`
const call = async (method: 'GET' | 'POST' | 'DELETE', path: string, params?: Record<string, unknown>) =>
  (await node.api(method, path, params)).data
/** Starts a task and returns how it ended. */
const done = async (method: 'POST' | 'DELETE', path: string, params: Record<string, unknown>) =>
  node.ended(await call(method, path, params))
const volumes = async (content: string) =>
  ((await call('GET', `${storage()}/content`, { content })) as { volid: string }[]).map(({ volid }) => volid)

async function logOf(upid: unknown): Promise<string> {
  const path = `${at}/tasks/${encodeURIComponent(String(upid))}/log`
  return ((await call('GET', path, { limit: 0 })) as { t: string }[]).map(({ t }) => t).join('\n')
}

test('a file comes from the web under its name, checked, and its task says how', async () => {
  const params = { content: 'iso', filename: 'a.iso', url: web.url('/moved'), checksum: sha256 }
  const upid = await call('POST', `${storage()}/download-url`, { ...params, 'checksum-algorithm': 'sha256' })
  assert.match(String(upid), /^UPID:wholenode:[0-9A-F]+:[0-9A-F]+:[0-9A-F]+:download:local:root@pam:$/)
  assert.equal(await node.ended(upid), 'OK')
  assert.deepEqual(await volumes('iso'), ['local:iso/a.iso'])
  assert.match(await logOf(upid), /receiving 200 KiB from .*\n200 KiB received, .*\nOK, checksum verified \(sha256\)/)
})

test('what fails leaves no trace and no secret', async () => {
  const ask = (change: object) =>
    call('POST', `${storage()}/download-url`, { content: 'iso', filename: 'b.iso', url: web.url('/cut'), ...change })
  assert.match(await node.ended(await ask({})), /^the download was cut off after \d+ of 204800 bytes$/)
  assert.match(await node.ended(await ask({ filename: 'a.iso' })), /^refusing to override existing file '.*\/a\.iso'$/)
  const forbidden = web.url('/file').replace('127.0.0.1', '127.0.0.2')
  assert.match(await node.ended(await ask({ url: forbidden })), /^'127\.0\.0\.2' is an address of this machine/)
  const elsewhere = web.url(`/to?where=${encodeURIComponent('http://169.254.169.254/latest/')}`)
  assert.match(await node.ended(await ask({ url: elsewhere })), /^'169\.254\.169\.254' is an address of this machine/)
  const secret = web.url('/gone?signature=hush-hush').replace('127', 'user:hush-hush@127')
  const upid = await ask({ url: secret })
  assert.match(await node.ended(upid), /^could not get 'http:\/\/127\.0\.0\.1:\d+\/gone': the server answers 404$/)
  assert.ok(!(await logOf(upid)).includes('hush'))
  const told = await host.run(['grep', '-r', 'hush-hush', node.settings.stateDir], { okCodes: [0, 1] })
  assert.equal(told.stdout, '')
  for (const [change, field] of [
    [{ filename: 'b.exe' }, 'filename'],
    [{ url: 'http://' }, 'url'],
    [{ checksum: 'abc', 'checksum-algorithm': 'md5' }, 'checksum'],
    [{ content: 'vztmpl', filename: 'b.tar.gz', compression: 'gz' }, 'compression'],
  ] as const) {
    await assert.rejects(ask(change), (fault: { fields?: object }) => Object.keys(fault.fields ?? {})[0] === field)
  }
  assert.deepEqual(await volumes('iso'), ['local:iso/a.iso'])
  const folder = join(node.settings.stateDir, 'storage/local/template/iso')
  assert.deepEqual(await readdir(folder), ['a.iso'])
})

test('what is behind a URL is told by the same rules', async () => {
  const ask = (url: string) => call('GET', `${at}/query-url-metadata`, { url })
  assert.deepEqual(await ask(web.url('/moved')), { filename: 'file', size: bytes.length })
  await assert.rejects(ask(web.url('/file').replace('127.0.0.1', '127.0.0.2')), /is not asked/)
})

test('a machine in an archive says what it is made of, to whoever may read the archive', async () => {
  const folder = join(node.settings.stateDir, 'storage/local/import')
  await mkdir(folder, { recursive: true })
  await host.run(['qemu-img', 'create', '-q', '-f', 'vmdk', join(folder, 'web-disk1.vmdk'), '8M'])
  await writeFile(join(folder, 'web.ovf'), ovfText({ disks: [{ file: 'web-disk1.vmdk', mib: 8 }] }))
  await host.run(['tar', '-C', folder, '-cf', join(folder, 'web.ova'), 'web.ovf', 'web-disk1.vmdk'])
  const found = await call('GET', `${storage()}/import-metadata`, { volume: 'import/web.ova' })
  assert.deepEqual(found, {
    type: 'vm',
    source: 'local:import/web.ova',
    'create-args': { name: 'web-server', cores: 2, memory: 192, ostype: 'l26', scsihw: 'pvscsi' },
    disks: { scsi0: { volid: 'local:import/web.ova/web-disk1.vmdk', size: 8 * 1024 * KiB } },
    net: { net0: { model: 'vmxnet3', macaddr: '00:50:56:AB:CD:EF' } },
    warnings: [],
  })
  const asStranger = await person('stranger@pve')
  const asked = await asStranger({
    method: 'GET',
    path: `${storage()}/import-metadata`,
    params: { volume: 'import/web.ova' },
    isUpload: false,
  })
  assert.equal(asked.status, 403)
})

test('a copy has another name, and is for root alone to make', async () => {
  const path = `${storage()}/content/iso/a.iso`
  assert.equal(await done('POST', path, { target: 'local:iso/copy.iso' }), 'OK')
  assert.deepEqual(await volumes('iso'), ['local:iso/a.iso', 'local:iso/copy.iso'])
  assert.equal(await done('POST', path, { target: 'local:iso/copy.iso' }), "volume 'local:iso/copy.iso' already exists")
  await assert.rejects(call('POST', path, { target: 'local:iso/x.iso', target_node: 'other' }), /verification failed/)
})

test('without an index there are no templates, and a storage says which place it is', async () => {
  assert.deepEqual(await call('GET', `${at}/aplinfo`), [])
  await assert.rejects(call('POST', `${at}/aplinfo`, { storage: 'local', template: 'x.tar' }), /verification failed/)
  const { id, type } = (await call('GET', `${storage()}/identity`)) as { id: string; type: string }
  assert.deepEqual([id, type], [`wholenode:${join(node.settings.stateDir, 'storage/local')}`, 'dir'])
})

test('pruning says what it would do, and does it, for whoever may', async () => {
  await call('POST', `${at}/qemu`, { vmid: 700, memory: 16 }).then((upid) => node.ended(upid))
  const backUp = (params: object) => done('POST', `${at}/vzdump`, { vmid: '700', storage: 'local', ...params })
  for (let number = 0; number < 3; number += 1) assert.match(await backUp({ remove: 0 }), /^WARNINGS|^OK/)
  const keep = { 'prune-backups': 'keep-last=1' }
  const plan = (await call('GET', `${storage()}/prunebackups`, keep)) as { mark: string; type: string; vmid: number }[]
  assert.deepEqual(
    plan.map(({ mark, type, vmid }) => [mark, type, vmid]),
    [
      ['remove', 'qemu', 700],
      ['remove', 'qemu', 700],
      ['keep', 'qemu', 700],
    ],
  )
  const asKeeper = await person('keeper@pve', [
    ['/storage/local', 'PVEDatastoreUser'],
    ['/vms/700', 'PVEVMUser'],
  ])
  const prune = (params: object) =>
    asKeeper({ method: 'DELETE', path: `${storage()}/prunebackups`, params: { ...keep, ...params }, isUpload: false })
  assert.equal((await prune({})).status, 403)
  assert.equal((await prune({ vmid: 701 })).status, 403)
  const { status, body } = await prune({ vmid: 700 })
  assert.equal(status, 200, JSON.stringify(body))
  assert.match(String(body['data']), /:prunebackups:700@local:keeper@pve:$/)
  assert.equal(await node.ended(body['data']), 'OK')
  assert.equal((await volumes('backup')).length, 1)
  await backUp(keep)
  assert.equal((await volumes('backup')).length, 1)
})

test('who does not own a storage protects five backups of a guest and no more', async () => {
  const asKeeper = await person('protector@pve', [
    ['/storage/local', 'PVEDatastoreUser'],
    ['/vms/700', 'PVEVMUser'],
  ])
  for (let number = 0; number < 5; number += 1) {
    await done('POST', `${at}/vzdump`, { vmid: '700', storage: 'local', remove: 0 })
  }
  const all = await volumes('backup')
  assert.equal(all.length, 6)
  const protect = (who: Caller, volid = '') => {
    const path = `${storage()}/content/${encodeURIComponent(volid)}`
    return who({ method: 'PUT', path, params: { protected: 1 }, isUpload: false })
  }
  for (const volid of all.slice(0, 5)) assert.equal((await protect(asKeeper, volid)).status, 200)
  const sixth = await protect(asKeeper, all[5])
  assert.match(
    JSON.stringify(sixth.body),
    /number of protected backups of guest 700 is limited to 5 on storage 'local'/,
  )
  // One that is protected already stays so.
  assert.equal((await protect(asKeeper, all[4])).status, 200)
  assert.equal((await protect(callerOver(node.asRoot), all[5])).status, 200)
})

test('new disks have the format their storage says, where nobody says another', async () => {
  await node.api('PUT', '/storage/local', { format: 'qcow2' })
  const made = await done('POST', `${at}/qemu`, {
    vmid: 701,
    memory: 16,
    scsi0: 'local:0.01',
    scsi1: 'local:0.01,format=raw',
  })
  assert.equal(made, 'OK')
  const config = (await call('GET', `${at}/qemu/701/config`)) as Record<string, string>
  assert.match(config['scsi0'] ?? '', /\.qcow2,/)
  assert.match(config['scsi1'] ?? '', /\.raw,/)
  const listed = (await call('GET', `${at}/storage`, { format: 1 })) as { formats: { default: string } }[]
  assert.equal(listed[0]?.formats.default, 'qcow2')
  await node.api('PUT', '/storage/local', { delete: 'format' })
})

async function person(username: string, rights: readonly (readonly [string, string])[] = []): Promise<Caller> {
  const { api, asFront } = node
  await api('POST', '/access/users', { userid: username, password: 'battery staple' })
  for (const [path, roles] of rights) await api('PUT', '/access/acl', { path, users: username, roles })
  const { data } = await api('POST', '/access/ticket', { username, password: 'battery staple' })
  const { ticket, CSRFPreventionToken: token } = data as { ticket: string; CSRFPreventionToken: string }
  return callerOver(asFront, { Cookie: `PVEAuthCookie=${ticket}`, CSRFPreventionToken: token })
}
