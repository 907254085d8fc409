/** A node keeps its backups in a bucket, and behind another Hakobune: all that works with a folder works there. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, suite, test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { type ObjectStore, objectStore } from '../fixtures/object-store.ts'
import { webhookListener } from '../fixtures/webhook-listener.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { signalProcess } from '#host/programs/proc.ts'
import { parseUpid } from '#tasks/upid.ts'
import { freePort } from '../own-names.ts'

type Reply = Record<string, unknown>

const program = [...nodeFlags, join(import.meta.dirname, '../../src/cli/main.ts')] as const

suite('storages elsewhere', { timeout: 600_000 }, () => {
  let node: TestNode
  let s3: ObjectStore
  let at: string
  let served: Served
  let bucket: string
  const closing = new AsyncDisposableStack()
  before(async () => {
    node = closing.use(await nodeUnderTest({ changes: { fetchNetworks: ['127.0.0.1'] } }))
    s3 = closing.use(await objectStore())
    at = `/nodes/${node.settings.node}`
    bucket = await s3.bucket({ lock: true })
    served = closing.use(await serving(join(node.settings.stateDir, 'served')))
    await addBucket('cloud', { bucket, prefix: 'site' })
    await node.api('POST', '/storage', { storage: 'other', ...served.reach('node', 'read,write') })
    await node.boot(100)
    await node.sh(100, 'echo kept >/root/note && sync')
  })
  after(() => closing.disposeAsync())

  const addBucket = (storage: string, more: Record<string, string>) =>
    node.api('POST', '/storage', {
      storage,
      type: 's3',
      endpoint: s3.endpoint,
      'access-key': s3.accessKey,
      'secret-key': s3.secretKey,
      ...more,
    })
  const backUp = async (storage: string, more: Record<string, string> = {}) => {
    const { log } = await node.task(await node.api('POST', `${at}/vzdump`, { vmid: '100', storage, ...more }))
    return log
  }
  const content = async (storage: string) =>
    (await node.api('GET', `${at}/storage/${storage}/content`, { content: 'backup' })) as Reply[]
  const statusOf = async (storage: string) => (await node.api('GET', `${at}/storage/${storage}/status`)) as Reply
  const noteOf = async (archive: string, more: Record<string, string> = {}) => {
    const restoring = { vmid: '101', archive, unique: '1', ...more }
    await node.task(await node.api('POST', `${at}/qemu`, restoring))
    if (more['live-restore'] === undefined) await node.task(await node.api('POST', `${at}/qemu/101/status/start`))
    const ping = () => node.api('POST', `${at}/qemu/101/agent/ping`).then(() => true, () => false) // prettier-ignore
    await waitFor(ping, { what: 'the agent of the restored guest', timeoutMs: 90_000, everyMs: 100 })
    const note = await node.sh(101, 'cat /root/note')
    await node.task(await node.api('POST', `${at}/qemu/101/status/stop`))
    await node.task(await node.api('DELETE', `${at}/qemu/101`))
    return note
  }

  test('no secret is shown, and none is needed to see how the storage is', async () => {
    for (const [storage, secret] of [
      ['cloud', s3.secretKey],
      ['other', served.token],
    ] as const) {
      // prettier-ignore
      const shown = (await node.api('GET', `/storage/${storage}`)) as Reply
      assert.ok(!JSON.stringify(shown).includes(secret))
      assert.equal((await statusOf(storage)).active, 1)
    }
    const { total, avail } = await statusOf('other')
    assert.ok(Number(total) > 0 && Number(avail) > 0)
    assert.deepEqual(await content('cloud'), [])
    // What was given stays when something else is changed.
    await node.api('PUT', '/storage/cloud', { 'prune-backups': 'keep-last=3' })
    assert.equal((await statusOf('cloud')).active, 1)
  })

  for (const storage of ['cloud', 'other']) {
    test(`a guest comes back from '${storage}', and its backups are looked after`, async () => {
      await backUp(storage, { 'notes-template': 'of {{guestname}}', protected: '1' })
      const [first] = await content(storage)
      assert.deepEqual([first?.notes, first?.protected], ['of t100', 1])
      await node.sh(100, 'echo changed >/root/note && sync')
      const log = await backUp(storage)
      await node.sh(100, 'echo kept >/root/note && sync')
      assert.doesNotMatch(log, /WARN|not pruned/)
      const [, second] = await content(storage)
      const isLive = storage === 'cloud'
      const [volid, wanted] = isLive ? [second?.volid, 'changed'] : [first?.volid, 'kept']
      assert.equal(await noteOf(String(volid), isLive ? { 'live-restore': '1' } : {}), wanted)
      await node.task(await node.api('POST', '/hako/verify/datastore', { storage }))
    })
  }

  test('where nothing is locked backups go, and their space comes back; a token that only adds removes nothing', async () => {
    const [first] = await content('cloud')
    const volume = encodeURIComponent(String(first?.volid))
    await node.api('PUT', `${at}/storage/cloud/content/${volume}`, { protected: '0', notes: 'going' })
    assert.equal((await content('cloud'))[0]?.notes, 'going')
    await node.task(await node.api('DELETE', `${at}/storage/cloud/prunebackups`, { 'prune-backups': 'keep-last=1' }))
    assert.equal((await content('cloud')).length, 1)
    await node.task(await node.api('POST', '/hako/datastore/collect', { storage: 'cloud' }))
    const [kept] = await content('other')
    const removing = await node.api('DELETE', `${at}/storage/other/content/${String(kept?.volid)}`)
    await node.task(removing, /protected|removes nothing/)
    assert.equal((await content('other')).length, 2)
  })

  test('a canary sings where nothing is locked, and is told of; where it is, nobody removes anything', async () => {
    await using heard = await webhookListener<Reply>()
    await node.api('PUT', '/hako/backup-options', { webhook: heard.url })
    const add = (id: string, storage: string) =>
      node.api('POST', '/hako/datastore-jobs', { id, type: 'canary', storage, schedule: '06:00' })
    const lock = { bucket: await s3.bucket({ lock: true }), 'retain-days': '1' }
    await addBucket('kept', lock)
    await backUp('kept')
    await add('loose', 'cloud')
    await add('firm', 'kept')
    await node.task(await node.api('POST', '/hako/datastore-jobs/loose/run'), /nothing keeps .* from being removed/)
    await node.task(await node.api('POST', '/hako/datastore-jobs/firm/run'))
    const told = await waitFor(() => heard.told[0], { what: 'the webhook', timeoutMs: 10_000 })
    assert.deepEqual([told.event, told.outcome, told.storage], ['canary', 'failed', 'cloud'])
    assert.equal(heard.told.length, 1)
    await node.api('PUT', '/hako/backup-options', { delete: 'webhook' })
    // One that dies on the way leaves what it locked, and keeps the next from nothing.
    const dying = await node.api('POST', '/hako/datastore-jobs/firm/run')
    await systemClock.sleep(Math.random() * 400) // The moment of death is the point of it.
    await signalProcess(parseUpid(String(dying)).pid, parseUpid(String(dying)).pstart, 'SIGKILL')
    await node.task(dying, /^OK$|^interrupted/)
    await node.task(await node.api('POST', '/hako/datastore-jobs/firm/run'))
    const jobs = (await node.api('GET', '/hako/datastore-jobs')) as Reply[]
    assert.deepEqual(
      jobs.filter(({ id }) => id === 'loose' || id === 'firm').map(({ id, result }) => [id, result]),
      [
        ['firm', 'good'],
        ['loose', 'failed'],
      ],
    )
    const [locked] = await content('kept')
    const removing = await node.api('DELETE', `${at}/storage/kept/content/${String(locked?.volid)}`)
    await node.task(removing, /is locked until/)
    await assert.rejects(addBucket('never', { bucket: await s3.bucket(), 'retain-days': '1' }), /no Object Lock/)
    await assert.rejects(addBucket('never', { bucket: 'no-such-bucket' }), /bucket 'no-such-bucket' does not exist/)
    await assert.rejects(addBucket('never', { bucket, 'secret-key': 'wrong' }), /refuses access/)
  })

  test('a copy is kept by itself, and what is damaged in it is found and fetched again', async () => {
    const path = join(node.settings.stateDir, 'copy')
    await mkdir(path)
    await node.api('POST', '/storage', { storage: 'copy', type: 'dir', path, content: 'backup' })
    const pull = { id: 'pull', type: 'sync', source: 'cloud', storage: 'copy', schedule: '04:00', bwlimit: '262144' }
    await node.api('POST', '/hako/datastore-jobs', pull)
    await node.task(await node.api('POST', '/hako/datastore-jobs/pull/run'))
    assert.deepEqual((await content('copy')).length, (await content('cloud')).length)
    const look = { id: 'look', type: 'verify', storage: 'copy', replica: 'cloud', minutes: '1', schedule: '02:00' }
    await node.api('POST', '/hako/datastore-jobs', look)
    await flipIn(join(path, 'datastore/packs'))
    const { log } = await node.task(await node.api('POST', '/hako/datastore-jobs/look/run'), /^WARNINGS: 1$/)
    assert.match(log, /is damaged\n[^]*backup vm\/100\/\S+ is hit\n[^]*came back from storage 'cloud'/)
    await node.task(await node.api('POST', '/hako/datastore-jobs/look/run'))
    await node.task(await node.api('POST', '/hako/verify/datastore', { storage: 'copy' }))
    const [shown] = (await node.api('GET', '/hako/backups', { storage: 'copy' })) as Reply[]
    assert.equal(shown?.damage, undefined)
    await node.api('DELETE', '/storage/copy')
    const left = (await node.api('GET', '/hako/datastore-jobs')) as Reply[]
    assert.ok(left.every(({ storage }) => storage !== 'copy'))
  })

  test('of a backup that dies in the middle nothing is seen, and the next one is whole', async () => {
    const raw = join(node.settings.stateDir, 'noise.raw')
    await writeFile(raw, randomBytes(16 * MiB))
    await node.task(await node.api('POST', `${at}/qemu`, { vmid: '102', scsi0: `local:0,import-from=${raw}` }))
    const upid = await node.api('POST', `${at}/vzdump`, { vmid: '102', storage: 'cloud', bwlimit: '4096' })
    const packs = () => s3.count(bucket, 'site/packs/')
    const before = await packs()
    await waitFor(async () => (await packs()) > before, { what: 'a first pack', timeoutMs: 30_000 })
    process.kill(parseUpid(String(upid)).pid, 'SIGKILL')
    await node.task(upid, /interrupted/)
    assert.ok((await content('cloud')).every(({ vmid }) => vmid === 100))
    await node.task(await node.api('POST', `${at}/vzdump`, { vmid: '102', storage: 'cloud' }))
    await node.task(await node.api('POST', '/hako/verify/datastore', { storage: 'cloud' }))
    assert.ok((await content('cloud')).some(({ vmid }) => vmid === 102))
  })

  test("no secret is in any file of the node but its store, which is root's alone", async () => {
    const { stateDir, runDir } = node.settings
    for (const secret of [s3.secretKey, served.token]) {
      const { stdout } = spawnSync('grep', ['-rlF', '--', secret, stateDir, runDir])
      const files = stdout.toString().split('\n').filter(Boolean)
      assert.ok(
        files.every((path) => path.startsWith(join(stateDir, 'store.sqlite'))),
        files.join(),
      )
      for (const path of files) assert.equal((await stat(path)).mode & 0o777, 0o600)
    }
  })

  // The last one: nobody is there any more.
  test('what is away is said within seconds, and keeps nobody else waiting', async () => {
    s3.signal('SIGSTOP')
    await served.stop()
    const startedMs = performance.now()
    const asked = ['cloud', 'other'].map((storage) => assert.rejects(content(storage), /time|reach/))
    await node.api('GET', `${at}/storage`)
    assert.ok(performance.now() - startedMs < 8_000)
    await Promise.all(asked)
    for (const storage of ['cloud', 'other']) assert.equal((await statusOf(storage)).active, 0)
    const againMs = performance.now()
    await assert.rejects(content('cloud'), /time|reach/)
    assert.ok(performance.now() - againMs < 1_000)
    assert.ok(againMs - startedMs < 25_000)
    assert.deepEqual(await content('local'), [])
    s3.signal('SIGCONT')
  })
})

async function flipIn(folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const [pack] = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  assert.ok(pack)
  const bytes = await readFile(pack)
  bytes.writeUInt8(bytes.readUInt8(60) ^ 1, 60)
  await writeFile(pack, bytes)
}

interface Served extends AsyncDisposable {
  readonly token: string
  readonly reach: (name: string, rights: string) => Record<string, string>
  readonly stop: () => Promise<void>
}

/** `hako datastore serve`, as its own process. */
async function serving(folder: string): Promise<Served> {
  await mkdir(folder, { recursive: true })
  const port = await freePort()
  const tokens = `${folder}.tokens`
  let token = ''
  const hako = (...args: readonly string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [...program, 'datastore', ...args])
    assert.equal(status, 0, stderr.toString())
    return stdout.toString().trim()
  }
  token = hako('token', tokens, 'node', '--rights', 'read,write')
  const args = ['datastore', 'serve', folder, '--listen', `127.0.0.1:${port}`, '--token-file', tokens]
  const child: ChildProcess = spawn(process.execPath, [...program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  assert.ok(child.stdout)
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  const fingerprint = /: (\S+)$/.exec(line)?.[1] ?? ''
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'close')
  }
  return {
    token,
    reach: () => ({
      type: 'hakobune',
      server: '127.0.0.1',
      port: String(port),
      datastore: 'site',
      password: token,
      fingerprint,
    }),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
