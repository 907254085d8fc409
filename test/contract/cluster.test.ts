/** What holds for the whole cluster: its options, its backup jobs and when they run. */
import assert from 'node:assert/strict'
import { mkdtemp, mkdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { type JobDeps, runDueJobs } from '#loops/backup-jobs.ts'
import { allOperations } from '#operations/all.ts'
import { TaskService } from '#tasks/service.ts'
import { buildServices } from '../../src/services.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

let node: WholeNode
let at: string
const closing = new AsyncDisposableStack()

before(async () => {
  const machineRoot = await mkdtemp(join(tmpdir(), 'hako-machine-'))
  closing.defer(() => rm(machineRoot, { recursive: true }))
  await mkdir(join(machineRoot, 'etc'))
  node = closing.use(await wholeNode({ machineRoot }))
  at = `/nodes/${node.settings.node}`
  await guest(300, { name: 'web', scsi0: 'local:0.01', scsi1: 'local:0.01,backup=0', ide2: 'none,media=cdrom' })
  await guest(301, { name: 'db', scsi0: 'local:0.01' })
})
after(() => closing.disposeAsync())

async function guest(vmid: number, options: Record<string, string>): Promise<void> {
  assert.equal(await node.ended((await node.api('POST', `${at}/qemu`, { vmid, ...options })).data), 'OK')
}

const get = async (path: string, params?: Record<string, unknown>) =>
  (await node.api('GET', path, params)).data as Record<string, unknown>

test('options are kept, shown in parts, and taken back', async () => {
  const { api } = node
  await api('PUT', '/cluster/options', {
    'tag-style': 'shape=full,case-sensitive=1',
    'next-id': 'lower=500,upper=502',
    'registered-tags': 'prod;dev',
    keyboard: 'de',
    max_workers: 4,
    description: 'in the cellar',
  })
  const options = await get('/cluster/options')
  assert.deepEqual(options['tag-style'], { shape: 'full', 'case-sensitive': 1 })
  assert.deepEqual(options['registered-tags'], ['prod', 'dev'])
  assert.deepEqual([options.keyboard, options.max_workers, options.mac_prefix], ['de', 4, 'BC:24:11'])
  await assert.rejects(api('PUT', '/cluster/options', { delete: 'nonsense' }), /Parameter verification failed/)
  await api('PUT', '/cluster/options', { delete: 'keyboard,tag-style' })
  assert.equal((await get('/cluster/options')).keyboard, undefined)
})

test('ids nobody names come from the range that was set, whose upper end is not given', async () => {
  const { api } = node
  assert.equal((await api('GET', '/cluster/nextid')).data, '500')
  await guest(500, {})
  assert.equal((await api('GET', '/cluster/nextid')).data, '501')
  await guest(501, {})
  await assert.rejects(api('GET', '/cluster/nextid'), /unable to get any free VMID/)
  await api('PUT', '/cluster/options', { delete: 'next-id' })
  assert.equal((await api('GET', '/cluster/nextid')).data, '100')
  for (const vmid of [500, 501]) await node.ended((await api('DELETE', `${at}/qemu/${vmid}`)).data)
})

test('a schedule is analysed in the time zone of the node', async () => {
  await node.api('PUT', `${at}/time`, { timezone: 'Europe/Vienna' })
  const dues = (
    await node.api('GET', '/cluster/jobs/schedule-analyze', {
      schedule: 'mon..fri 02:30',
      starttime: Date.parse('2026-07-03T12:00:00Z') / 1000,
      iterations: 2,
    })
  ).data as { timestamp: number; utc: string }[]
  assert.deepEqual(
    dues.map(({ timestamp }) => new Date(timestamp * 1000).toISOString()),
    ['2026-07-06T00:30:00.000Z', '2026-07-07T00:30:00.000Z'],
  )
  assert.match(dues[0]?.utc ?? '', /^Mon, 06 Jul 2026 00:30:00/)
  await node.api('PUT', `${at}/time`, { timezone: 'UTC' })
})

test('what holds for all backups is kept; a secret is forgotten when its webhook is another, and what is unsafe is refused', async () => {
  const { api } = node
  const path = '/hako/backup-options'
  assert.deepEqual(await get(path), {})
  const webhook = 'https://127.0.0.1:9/hook'
  await api('PUT', path, { 'at-once': 2, webhook, 'webhook-secret-file': '/root/secret', 'webhook-header': 'X-Token' })
  const kept = { 'at-once': 2, webhook, 'webhook-on': 'failure', 'webhook-header': 'X-Token' }
  assert.deepEqual(await get(path), { ...kept, 'webhook-secret-file': '/root/secret' })
  await assert.rejects(api('POST', `${path}/try-webhook`), /does not exist/)
  await api('PUT', path, { webhook: `${webhook}/other`, 'webhook-on': 'always' })
  assert.deepEqual(await get(path), { ...kept, webhook: `${webhook}/other`, 'webhook-on': 'always' })
  // It is the node itself.
  await assert.rejects(api('POST', `${path}/try-webhook`), /is an address of this machine/)
  for (const wrong of [{ webhook: 'file:///etc/passwd' }, { webhook: 'http://x/', 'webhook-secret-file': '/x' }]) {
    await assert.rejects(api('PUT', path, wrong), /Parameter verification failed/)
  }
  await api('PUT', path, { delete: 'webhook,at-once' })
  assert.deepEqual(await get(path), {})
  await assert.rejects(api('PUT', path, { 'webhook-on': 'always' }), /Parameter verification failed/)
  await assert.rejects(api('POST', `${path}/try-webhook`), /does not exist/)
})

test('a backup job is created, shown, changed and deleted', async () => {
  const { api } = node
  await api('POST', '/cluster/backup', {
    id: 'nightly',
    schedule: 'mon..fri 02:30',
    vmid: '300',
    storage: 'local',
    fleecing: 'enabled=1,storage=local',
    'prune-backups': 'keep-all=1',
    comment: 'every night',
  })
  const job = await get('/cluster/backup/nightly')
  assert.deepEqual(job.fleecing, { enabled: 1, storage: 'local' })
  assert.deepEqual([job.id, job.type, job.enabled, job.vmid], ['nightly', 'vzdump', 1, '300'])
  assert.ok(Number(job['next-run']) > Date.now() / 1000)
  assert.deepEqual(await get('/cluster/backup'), [job])

  const { children } = (await get('/cluster/backup/nightly/included_volumes')) as {
    children: { id: number; children: unknown }[]
  }
  assert.deepEqual(children, [
    {
      id: 300,
      name: 'web',
      type: 'qemu',
      children: [
        { id: 'scsi0', name: 'local:300/vm-300-disk-0.raw', included: 1, reason: 'backup=yes' },
        { id: 'scsi1', name: 'local:300/vm-300-disk-1.raw', included: 0, reason: 'backup=no' },
      ],
    },
  ])
  assert.deepEqual(await get('/cluster/backup-info/not-backed-up'), [{ vmid: 301, name: 'db', type: 'qemu' }])

  await api('PUT', '/cluster/backup/nightly', { all: 1, exclude: '300', enabled: 0, delete: 'comment' })
  const changed = await get('/cluster/backup/nightly')
  assert.deepEqual(
    [changed.vmid, changed.all, changed.exclude, changed.enabled, changed.comment, changed['next-run']],
    [undefined, 1, '300', 0, undefined, undefined],
  )
  assert.equal(((await get('/cluster/backup-info/not-backed-up')) as unknown as unknown[]).length, 2)
  await api('DELETE', '/cluster/backup/nightly')
  await assert.rejects(api('GET', '/cluster/backup/nightly'), /No such job 'nightly'/)
})

test('older clients say day and time, and get a schedule', async () => {
  await node.api('POST', '/cluster/backup', { starttime: '02:30', dow: 'mon,fri', all: 1, storage: 'local' })
  const [job] = (await get('/cluster/backup')) as unknown as { id: string; schedule: string }[]
  assert.equal(job?.schedule, 'mon,fri 02:30')
  assert.match(job?.id ?? '', /^backup-[0-9a-f]{8}-[0-9a-f]{4}$/)
  await node.api('DELETE', `/cluster/backup/${job?.id}`)
})

test('a job that could never run is refused when it is made', async () => {
  const wrong: readonly [Record<string, unknown>, RegExp][] = [
    [{ schedule: 'daily' }, /vmid/],
    [{ all: 1 }, /schedule/],
    [{ schedule: 'daily', all: 1, vmid: '300' }, /all/],
    [{ schedule: 'daily', pool: 'nowhere' }, /pool 'nowhere' does not exist/],
    [{ schedule: 'daily', all: 1, storage: 'nowhere' }, /storage 'nowhere' does not exist/],
    [{ schedule: 'daily', all: 1, script: 'x' }, /script/],
    [{ schedule: 'daily', starttime: '01:00', all: 1 }, /starttime/],
  ]
  for (const [params, text] of wrong) {
    const refusal = await node.api('POST', '/cluster/backup', params).then(
      () => 'it was taken',
      (error: unknown) => `${String(error)} ${JSON.stringify((error as { fields?: unknown }).fields ?? {})}`,
    )
    assert.match(refusal, text, JSON.stringify(params))
  }
  assert.deepEqual(await get('/cluster/backup'), [])
})

test('a job runs when it is due, once, and what it covers then is backed up', async () => {
  await using clockwork = await jobsAt(Date.now())
  await node.api('POST', '/pools', { poolid: 'saved' })
  await node.api('PUT', '/pools', { poolid: 'saved', vms: '301' })
  await node.api('POST', '/cluster/backup', { id: 'byPool', schedule: '*/30', pool: 'saved', storage: 'local' })
  await node.api('POST', '/cluster/backup', { id: 'off', schedule: '*/30', all: 1, storage: 'local', enabled: 0 })
  assert.deepEqual(await clockwork.run(), [])
  clockwork.passTo(((await get('/cluster/backup/byPool'))['next-run'] as number) + 1)
  const [upid = '', ...others] = await clockwork.run()
  assert.deepEqual(others, [])
  assert.equal(await node.ended(upid), 'OK')
  assert.deepEqual(await clockwork.run(), [])
  const content = (await node.api('GET', `${at}/storage/local/content`, { content: 'backup' })).data as {
    vmid: number
  }[]
  assert.deepEqual(
    content.map(({ vmid }) => vmid),
    [301],
  )
})

test('runs that were missed are made up for once, and only where that was asked for', async () => {
  await using clockwork = await jobsAt(Date.now())
  await node.api('DELETE', '/cluster/backup/byPool')
  await node.api('POST', '/cluster/backup', { id: 'lax', schedule: '03:00', vmid: '301', storage: 'local' })
  await node.api('POST', '/cluster/backup', {
    id: 'keen',
    schedule: '03:00',
    vmid: '301',
    storage: 'local',
    'repeat-missed': 1,
  })
  clockwork.passTo(Number((await get('/cluster/backup/keen'))['next-run']) + 3 * 86_400 + 7_200)
  const started = await clockwork.run()
  assert.equal(started.length, 1)
  assert.equal(await node.ended(started[0]), 'OK')
  assert.deepEqual(await clockwork.run(), [])
  const next = [await get('/cluster/backup/keen'), await get('/cluster/backup/lax')].map((job) =>
    Number(job['next-run']),
  )
  assert.ok(next.every((due) => due > clockwork.now() / 1000))
})

/** The loop's rounds over the node's own store, at times the test chooses. */
async function jobsAt(start: number) {
  await using undo = new AsyncDisposableStack()
  const services = await buildServices(node.settings, { log: silentLog, isStoreChecked: false })
  undo.use(services.store)
  const workerEntry = join(import.meta.dirname, '../../src/worker.ts')
  const tasks = undo.use(new TaskService({ ...services, workerEntry, operations: allOperations }))
  let now = start
  const clock = { ...systemClock, now: () => now }
  const { BackupJobs } = await import('#cluster/backup-jobs.ts')
  const deps: JobDeps = { ...services, tasks, clock, backupJobs: new BackupJobs({ store: services.store, clock }) }
  const release = undo.move()
  return {
    now: () => now,
    passTo: (seconds: number) => (now = seconds * 1000),
    run: () => runDueJobs(deps),
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

test('a guest that is purged is in no job any more; one that is only deleted is', async () => {
  const { api } = node
  await guest(302, {})
  await guest(303, {})
  await api('POST', '/cluster/backup', { id: 'named', schedule: 'yearly', vmid: '301,302,303', storage: 'local' })
  assert.equal(await node.ended((await api('DELETE', `${at}/qemu/302`, { purge: 1 })).data), 'OK')
  assert.equal(await node.ended((await api('DELETE', `${at}/qemu/303`)).data), 'OK')
  assert.equal((await get('/cluster/backup/named')).vmid, '301,303')
})

test('settings of the machine are read and written where the machine keeps them', async () => {
  const { api, settings } = node
  const etc = join(settings.machineRoot ?? '', 'etc')
  await api('PUT', `${at}/time`, { timezone: 'Asia/Kathmandu' })
  const time = await get(`${at}/time`)
  assert.equal(time.timezone, 'Asia/Kathmandu')
  assert.equal(Number(time.localtime) - Number(time.time), (5 * 60 + 45) * 60)
  await api('PUT', `${at}/dns`, { search: 'example.org', dns1: '192.0.2.1', dns2: '2001:db8::53' })
  assert.deepEqual(await get(`${at}/dns`), { dns1: '192.0.2.1', dns2: '2001:db8::53', search: 'example.org' })
  assert.match(await readFile(join(etc, 'resolv.conf'), 'utf8'), /^nameserver 192\.0\.2\.1$/m)
  const { digest } = await get(`${at}/hosts`)
  await api('POST', `${at}/hosts`, { data: '127.0.0.1 localhost\n', digest })
  assert.equal((await get(`${at}/hosts`)).data, '127.0.0.1 localhost\n')
  await assert.rejects(api('POST', `${at}/hosts`, { data: '127.0.0.1 x\n', digest }), /detected modified configuration/)
  assert.equal(await readFile(join(etc, 'hosts'), 'utf8'), '127.0.0.1 localhost\n')
})

test('a node keeps what it is told about itself, and no change is lost', async () => {
  const { api } = node
  await api('PUT', `${at}/config`, { description: 'here', wakeonlan: 'BC:24:11:00:00:01', 'startall-onboot-delay': 5 })
  const config = await get(`${at}/config`)
  assert.deepEqual([config.description, config['startall-onboot-delay']], ['here', 5])
  await api('PUT', `${at}/config`, { description: 'there', digest: config.digest })
  await assert.rejects(
    api('PUT', `${at}/config`, { description: 'nowhere', digest: config.digest }),
    /detected modified configuration/,
  )
  await api('PUT', `${at}/config`, { delete: 'description' })
  const { wakeonlan, description } = await get(`${at}/config`)
  assert.deepEqual([wakeonlan, description], ['BC:24:11:00:00:01', undefined])
})
