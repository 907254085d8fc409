/** A node keeps its backups in a bucket, and behind another Hakobune: all that works with a folder works there. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { type ObjectStore, objectStore } from '../fixtures/object-store.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { freePort } from '../own-names.ts'

type Reply = Record<string, unknown>

const program = ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, '../../src/cli/main.ts')] as const

suite('storages elsewhere', { timeout: 600_000 }, () => {
  let node: TestNode
  let s3: ObjectStore
  let at: string
  let served: Served
  let bucket: string
  const closing = new AsyncDisposableStack()
  before(async () => {
    node = closing.use(await nodeUnderTest())
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
      await backUp(storage, { 'notes-template': 'of {{guestname}}' })
      await node.sh(100, 'echo changed >/root/note && sync')
      const log = await backUp(storage)
      await node.sh(100, 'echo kept >/root/note && sync')
      const [first, second] = await content(storage)
      assert.equal(first?.notes, 'of t100')
      assert.match(log, /incremental|changed/i)
      assert.equal(await noteOf(String(first?.volid)), 'kept')
      assert.equal(await noteOf(String(second?.volid), { 'live-restore': '1' }), 'changed')
      await node.task(await node.api('POST', '/hako/verify/backup', { volume: String(first?.volid) }))
      await node.task(await node.api('POST', '/hako/verify/datastore', { storage }))
    })
  }
})

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
