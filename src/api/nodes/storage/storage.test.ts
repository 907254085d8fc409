import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { asVolumeId } from '#base/ids.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { NodeFacts } from '#cluster/node-facts.ts'
import { createDispatcher } from '#rest/dispatch.ts'
import type { Judge } from '#rest/endpoint.ts'
import type { NodeServices } from '#services.ts'
import { smallStorage } from '#storage/small-storage.ts'
import { btrfsDisk } from '../../../../test/fixtures/btrfs-disk.ts'
import type { Call } from '../../call.ts'
import { storageEndpoints } from '../../storage/storage.ts'
import { versionEndpoints } from '../../version.ts'
import { nodeEndpoints } from '../node.ts'
import { contentEndpoints } from './content.ts'
import { nodeStorageEndpoints } from './storage.ts'
import { uploadEndpoints } from './upload.ts'

interface Answer {
  readonly status: number
  readonly reason: string
  readonly data: unknown
  readonly errors?: Record<string, string>
}
type Rights = Readonly<Record<string, readonly string[]>>

/** The branch served as the daemon serves it, without the network and without tasks. */
async function world() {
  const lab = await smallStorage()
  const started: unknown[] = []
  const annotated: unknown[] = []
  const forgotten: string[] = []
  const backup = { list: async () => [], annotate: async (...change: unknown[]) => void annotated.push(change) }
  const settings = { node: 'lab', stateDir: lab.folder }
  // Handlers of this branch reach for nothing else.
  const services = {
    settings,
    storage: lab.service,
    backup,
    guests: { containers: async () => new Set() },
    node: new NodeFacts({ clock: systemClock }),
    datastoreJobs: { forgetStorage: async (storage: string) => void forgotten.push(storage) },
  } as unknown as NodeServices
  const ask = async (rights: Rights | 'root', method: string, path: string, params: Record<string, unknown> = {}) => {
    const judge: Judge = {
      isRoot: () => rights === 'root',
      privilegesOn: async (_, at) => new Map((rights === 'root' ? [] : (rights[at] ?? [])).map((one) => [one, true])),
    }
    const who = { user: 'bob@pve', authId: 'bob@pve' }
    const dispatcher = createDispatcher<Call>({
      endpoints: [
        ...storageEndpoints,
        ...nodeStorageEndpoints,
        ...contentEndpoints,
        ...uploadEndpoints,
        ...nodeEndpoints,
        ...versionEndpoints,
      ],
      judge,
      node: 'lab',
      log: silentLog,
      random: systemRandom,
      makeCall: ({ signal, remoteAddress, again }) => ({
        who,
        services,
        signal,
        remoteAddress,
        again,
        start: async ({ name }, given) => {
          started.push([name, given])
          return `UPID:lab:00000001:00000001:00000001:${name}:local:bob@pve:`
        },
        may: async (at, ...privileges) =>
          rights === 'root' || privileges.every((one) => rights[at]?.includes(one) ?? false),
      }),
    })
    const isQuery = method === 'GET' || method === 'DELETE'
    const reply = await dispatcher.handle({
      method,
      path,
      query: isQuery ? new URLSearchParams(Object.entries(params).map(([k, v]) => [k, String(v)])).toString() : '',
      format: 'json',
      authenticate: async () => who,
      body: async () => (isQuery ? {} : params),
      signal: new AbortController().signal,
      remoteAddress: '192.0.2.7',
    })
    return { status: reply.status, reason: reply.reason, ...(JSON.parse(reply.body) as object) } as Answer
  }
  return { lab, ask, started, annotated, forgotten, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() }
}

const content = '/nodes/lab/storage/local/content'

test('a storage is added, shown, changed and forgotten', async () => {
  await using at = await world()
  const path = join(at.lab.folder, 'fast')
  const input = { storage: 'fast', type: 'dir', path, content: 'iso,backup', 'prune-backups': 'keep-last=2' }
  assert.deepEqual((await at.ask('root', 'POST', '/storage', input)).data, { storage: 'fast', type: 'dir' })
  const shown = (await at.ask('root', 'GET', '/storage/fast')).data as { digest: string }
  assert.deepEqual(shown, { ...input, digest: shown.digest })
  const again = await at.ask('root', 'POST', '/storage', { ...input, path: `${path}2` })
  assert.deepEqual([again.status, again.reason], [500, "storage 'fast' already exists"])

  const change = { content: 'iso', disable: 1, delete: 'prune-backups', digest: shown.digest }
  assert.equal((await at.ask('root', 'PUT', '/storage/fast', change)).status, 200)
  const { digest, ...changed } = (await at.ask('root', 'GET', '/storage/fast')).data as { digest: string }
  assert.deepEqual(changed, { storage: 'fast', type: 'dir', path, content: 'iso', disable: 1 })
  assert.notEqual(digest, shown.digest)
  const late = await at.ask('root', 'PUT', '/storage/fast', change)
  assert.deepEqual([late.status, late.reason.split(' - ')[0]], [500, 'detected modified configuration'])

  assert.deepEqual(await at.ask('root', 'DELETE', '/storage/fast'), { status: 200, reason: 'OK', data: null })
  assert.deepEqual(at.forgotten, ['fast'])
  const gone = await at.ask('root', 'GET', '/storage/fast')
  assert.deepEqual([gone.status, gone.reason], [500, "storage 'fast' does not exist"])
})

test('a storage on btrfs is not added where there is none, nor with options of another type', async () => {
  await using at = await world()
  const path = join(at.lab.folder, 'tank')
  const refused = async (input: object) => {
    const answer = await at.ask('root', 'POST', '/storage', { storage: 'tank', path, ...input })
    return [answer.status, Object.entries(answer.errors ?? {})]
  }
  assert.deepEqual(await refused({ type: 'btrfs' }), [400, [['path', `'${path}' is not on a btrfs file system`]]])
  assert.equal((await refused({ type: 'dir', nocow: 1 }))[0], 400)
  await using disk = await btrfsDisk(256 * MiB)
  const input = { storage: 'tank', type: 'btrfs', path: join(disk.path, 'guests'), nocow: 1 }
  assert.deepEqual((await at.ask('root', 'POST', '/storage', input)).data, { storage: 'tank', type: 'btrfs' })
  const { digest: _, ...shown } = (await at.ask('root', 'GET', '/storage/tank')).data as Record<string, unknown>
  assert.deepEqual(shown, { ...input, content: 'images,rootdir' })
})

test('the storage every node has can be changed, and removed it is as a new node has it', async () => {
  await using at = await world()
  assert.equal((await at.ask('root', 'PUT', '/storage/local', { content: 'iso', disable: 1 })).status, 200)
  assert.deepEqual(await at.ask('root', 'DELETE', '/storage/local'), { status: 200, reason: 'OK', data: null })
  const { digest: _, ...local } = (await at.ask('root', 'GET', '/storage/local')).data as Record<string, unknown>
  assert.deepEqual(local, {
    storage: 'local',
    type: 'dir',
    path: join(at.lab.folder, 'storage', 'local'),
    content: 'images,rootdir,iso,vztmpl,snippets,import,backup',
  })
  assert.deepEqual((await at.ask('root', 'GET', content)).data, [])
})

test('bad options are refused field by field', async () => {
  await using at = await world()
  const answer = await at.ask('root', 'POST', '/storage', {
    storage: '-',
    type: 'nfs',
    path: 'x',
    content: 'films',
    monhost: 'a',
  })
  assert.equal(answer.status, 400)
  assert.deepEqual(Object.keys(answer.errors ?? {}).toSorted(), ['content', 'monhost', 'path', 'storage', 'type'])
})

test('a disk is allocated at once, told, and removed by a task', async () => {
  await using at = await world()
  const wish = { vmid: 100, filename: 'vm-100-disk-0.qcow2', size: '1024', format: 'qcow2' }
  const made = await at.ask('root', 'POST', content, wish)
  assert.equal(made.data, 'local:100/vm-100-disk-0.qcow2')
  const [item, ...rest] = (await at.ask('root', 'GET', content, { vmid: 100 })).data as {
    volid: string
    size: number
  }[]
  assert.deepEqual([item?.volid, item?.size, rest], [made.data, MiB, []])
  for (const spelled of [
    'local:100/vm-100-disk-0.qcow2',
    'local:100%2Fvm-100-disk-0.qcow2',
    '100/vm-100-disk-0.qcow2',
  ]) {
    const facts = (await at.ask('root', 'GET', `${content}/${spelled}`)).data as { format: string; size: number }
    assert.deepEqual([facts.format, facts.size], ['qcow2', MiB], spelled)
    const removal = await at.ask('root', 'DELETE', `${content}/${spelled}`, { delay: 5 })
    assert.match(String(removal.data), /^UPID:lab:.*:imgdel:/)
    assert.deepEqual(at.started.pop(), ['imgdel', { volume: 'local:100/vm-100-disk-0.qcow2' }])
  }
  assert.equal(
    (await at.ask('root', 'POST', content, { ...wish, filename: 'vm-100-b', size: '3M' })).data,
    'local:100/vm-100-b.qcow2',
  )
})

test('what a volume cannot be called is refused, wherever it leads', async () => {
  await using at = await world()
  for (const volume of [
    '..%2F..%2Fetc%2Fshadow',
    'iso/..%2f..%2fa.iso',
    'other:iso/a.iso',
    'iso/a.exe',
    '100/vm-101-disk-0.raw',
  ]) {
    for (const method of ['GET', 'DELETE']) {
      const answer = await at.ask('root', method, `${content}/${volume}`)
      assert.equal(answer.status, 400, `${method} ${volume}: ${answer.reason}`)
      assert.deepEqual(Object.keys(answer.errors ?? {}), ['volume'])
    }
  }
  for (const [field, bad] of [
    ['filename', { filename: '../vm-100-x' }],
    ['size', { size: '1T' }],
    ['size', { size: '999999999999G' }],
    ['vmid', { vmid: 99 }],
    ['format', { format: 'vmdk' }],
  ] as const) {
    const answer = await at.ask('root', 'POST', content, { vmid: 100, filename: 'vm-100-a', size: '1M', ...bad })
    assert.deepEqual([answer.status, Object.keys(answer.errors ?? {})], [400, [field]], JSON.stringify(bad))
  }
  assert.deepEqual(await at.lab.look(), {})
})

test('nobody reads or removes a volume without the right to', async () => {
  await using at = await world()
  await at.ask('root', 'POST', content, { vmid: 100, filename: 'vm-100-disk-0', size: '1M' })
  const disk = `${content}/100/vm-100-disk-0.raw`
  const status = async (rights: Rights, method: string, path: string) => (await at.ask(rights, method, path)).status
  assert.equal(await status({}, 'GET', content), 403)
  assert.equal(await status({}, 'GET', disk), 403)
  assert.equal(await status({ '/vms/100': ['VM.Config.Disk'] }, 'GET', disk), 200)
  assert.equal(await status({ '/vms/100': ['VM.Config.Disk'] }, 'DELETE', disk), 403)
  assert.equal(await status({ '/storage/local': ['Datastore.Allocate'] }, 'DELETE', disk), 200)
  const user = { '/storage/local': ['Datastore.AllocateSpace'], '/vms/100': ['VM.Backup'] }
  const backup = `${content}/backup/vm/100/2026-11-20T10:00:00Z`
  assert.equal(await status(user, 'DELETE', backup), 200)
  assert.equal(await status({ '/vms/100': ['VM.Backup'] }, 'DELETE', backup), 403)
  assert.equal((await at.ask(user, 'PUT', backup, { notes: 'kept', protected: 1 })).status, 200)
  const volid = asVolumeId('local:backup/vm/100/2026-11-20T10:00:00Z')
  assert.deepEqual(at.annotated, [[volid, { notes: 'kept', protected: true }]])
})

test('an upload becomes a task, or is refused before one starts', async () => {
  await using at = await world()
  const spooled = join(at.lab.folder, 'upload/claimed/upload-1')
  await mkdir(join(at.lab.folder, 'upload/claimed'), { recursive: true })
  await writeFile(spooled, 'x')
  const rights = { '/storage/local': ['Datastore.AllocateTemplate'] }
  const upload = { content: 'snippets', filename: 'user data.yaml', tmpfilename: spooled }
  const answer = await at.ask(rights, 'POST', '/nodes/lab/storage/local/upload', upload)
  assert.match(String(answer.data), /^UPID:lab:.*:imgcopy:/)
  assert.deepEqual(at.started, [
    ['imgcopy', { storage: 'local', content: 'snippets', fileName: 'user_data.yaml', spooled }],
  ])
  assert.equal((await at.ask({}, 'POST', '/nodes/lab/storage/local/upload', upload)).status, 403)
  for (const [field, bad] of [
    ['content', { content: 'backup' }],
    ['filename', { content: 'iso' }],
    ['tmpfilename', { tmpfilename: '/etc/shadow' }],
    ['checksum-algorithm', { checksum: 'abc' }],
  ] as const) {
    const refused = await at.ask(rights, 'POST', '/nodes/lab/storage/local/upload', { ...upload, ...bad })
    assert.deepEqual([refused.status, Object.keys(refused.errors ?? {})], [400, [field]], JSON.stringify(bad))
  }
})

test('lists tell each caller of what that caller may use', async () => {
  await using at = await world()
  assert.deepEqual((await at.ask({}, 'GET', '/nodes/lab/storage')).data, [])
  assert.deepEqual((await at.ask({}, 'GET', '/storage')).data, [])
  const user = { '/storage/local': ['Datastore.AllocateSpace'] }
  const [local] = (await at.ask(user, 'GET', '/nodes/lab/storage', { format: 1 })).data as Record<string, unknown>[]
  assert.deepEqual([local?.['storage'], local?.['active'], local?.['shared']], ['local', 1, 0])
  const status = (await at.ask(user, 'GET', '/nodes/lab/storage/local/status')).data as Record<string, unknown>
  assert.deepEqual([status['type'], status['enabled'], typeof status['avail']], ['dir', 1, 'number'])
  assert.deepEqual((await at.ask(user, 'GET', '/nodes/lab/storage/local')).data, [
    { subdir: 'content' },
    { subdir: 'download-url' },
    { subdir: 'file-restore' },
    { subdir: 'identity' },
    { subdir: 'import-metadata' },
    { subdir: 'oci-registry-pull' },
    { subdir: 'prunebackups' },
    { subdir: 'rrd' },
    { subdir: 'rrddata' },
    { subdir: 'status' },
    { subdir: 'upload' },
  ])
})

test('versions and nodes are told as clients expect them', async () => {
  await using at = await world()
  const version = (await at.ask({}, 'GET', '/version')).data as Record<string, string>
  assert.match(version['version'] ?? '', /^9\.2\.\d+$/)
  assert.equal(version['release'], '9.2')
  assert.match(version['repoid'] ?? '', /^[0-9a-f]{8,64}$/)
  assert.ok(version['hakobune'])
  const [node] = (await at.ask({}, 'GET', '/nodes')).data as Record<string, unknown>[]
  assert.deepEqual(node, { node: 'lab', type: 'node', id: 'node/lab', status: 'online', level: '' })
  assert.equal((await at.ask({}, 'GET', '/nodes/lab/status')).status, 403)
  const status = (await at.ask({ '/nodes/lab': ['Sys.Audit'] }, 'GET', '/nodes/lab/status')).data as Record<
    string,
    unknown
  >
  for (const key of [
    'uptime',
    'cpu',
    'wait',
    'idle',
    'loadavg',
    'kversion',
    'cpuinfo',
    'memory',
    'swap',
    'rootfs',
    'ksm',
    'boot-info',
  ]) {
    assert.ok(key in status, key)
  }
})
