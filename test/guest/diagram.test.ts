/** The picture of a node follows what happens to it: whoever is killed is drawn so within five seconds. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import type { Architecture } from '#views/architecture/graph.ts'
import { logIn, proofOf, publicPort } from '../contract/public-port.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const withinMs = 5_000

describe('the diagram of a node', () => {
  const closing = new AsyncDisposableStack()
  let node: TestNode
  let picture: string

  before(async () => {
    node = closing.use(await nodeUnderTest())
    await node.task(
      await node.api('POST', '/nodes/testnode/qemu', {
        vmid: '100',
        memory: '32',
        scsi0: 'local:0.01',
        net0: 'virtio,bridge=absent',
      }),
    )
    await node.task(await node.api('POST', '/nodes/testnode/qemu', { vmid: '101', memory: '32' }))
    await node.task(await node.api('POST', '/nodes/testnode/qemu/101/status/start'))
    await node.api('POST', '/cluster/backup', { storage: 'local', vmid: '100', schedule: 'daily' })
    const folder = await mkdtemp(join(tmpdir(), 'hako-diagram-'))
    closing.defer(() => rm(folder, { recursive: true, force: true }))
    picture = join(folder, 'node.svg')
    const cli = [
      '--disable-warning=ExperimentalWarning',
      'src/cli/main.ts',
      'diagram',
      '--level',
      '2',
      '--follow',
      '--to',
      picture,
    ]
    const env = { ...process.env, HAKO_RUN_DIR: node.settings.runDir, LANG: 'C' }
    const drawer = spawn(process.execPath, cli, { env, stdio: 'ignore' })
    closing.defer(() => void drawer.kill('SIGKILL'))
    await untilDrawn('vm--101', 'ok', 30_000)
  })
  after(() => closing.disposeAsync())

  const architectureAt = async (level: 1 | 2 | 3) =>
    (await node.api('GET', '/hako/architecture/testnode', { level: String(level) })) as Architecture

  async function untilDrawn(anchor: string, state: string, timeoutMs = withinMs): Promise<void> {
    const drawn = new RegExp(`id="${anchor}"[^>]*data-state="${state}"`)
    const isDrawn = async () => drawn.test(await readFile(picture, 'utf8').catch(() => ''))
    await waitFor(isDrawn, { what: `${anchor} drawn as ${state}`, timeoutMs, everyMs: 50 })
  }

  test('says what runs, where it is kept, what it is connected to, and what protects it', async () => {
    const { parts, edges } = await architectureAt(3)
    const of = (id: string) => edges.filter(({ from }) => from === id).map(({ to, type }) => `${type} ${to}`)
    assert.deepEqual(of('vm/100').toSorted(), [
      'backs up to datastore/local',
      'depends on nic/100/net0',
      'depends on volume/100/scsi0',
      'runs on qemu',
    ])
    assert.deepEqual(of('volume/100/scsi0'), ['stores on storage/local'])
    assert.deepEqual(of('datastore/local'), ['stores on storage/local'])
    const states = Object.fromEntries(parts.map(({ id, state }) => [id, state]))
    assert.equal(states['vm/100'], 'off')
    assert.equal(states['vm/101'], 'ok')
    assert.equal(states.daemon, 'ok')
    assert.match(parts.find(({ id }) => id === 'qemu')?.version ?? '', /\d+\.\d+/)
    const top = await architectureAt(1)
    assert.ok(top.parts.length <= 25)
    assert.deepEqual(top.parts.find(({ id }) => id === 'vm')?.detail, '1 ok, 1 off')
  })

  test('shows a caller the guests and storages that caller may see, and no others', async () => {
    const [userid, password] = ['eve@pve', 'correct horse battery']
    await node.api('POST', '/access/users', { userid, password })
    await node.api('PUT', '/access/acl', { path: '/nodes', users: userid, roles: 'PVEAuditor' })
    await node.api('PUT', '/access/acl', { path: '/vms/100', users: userid, roles: 'PVEAuditor' })
    const base = `${node.url}/api2/json`
    const ask = publicPort(base, proofOf(await logIn(base, userid, password)))
    const { parts } = (await ask('/hako/architecture/testnode?level=2')).data as Architecture
    const shown = parts.filter(({ kind }) => ['vm', 'storage', 'datastore'].includes(kind)).map(({ id }) => id)
    assert.deepEqual(shown, ['vm/100'])
  })

  test('a guest whose QEMU was killed is drawn as off', async () => {
    const { pid } = (await node.api('GET', '/nodes/testnode/qemu/101/status/current')) as { pid: number }
    process.kill(pid, 'SIGKILL')
    await untilDrawn('vm--101', 'off')
  })

  test('without the daemon it is drawn as failed and everything else as unknown; with it, as before', async () => {
    await node.kill9()
    await untilDrawn('daemon', 'failed')
    await untilDrawn('storage--local', 'unknown')
    await node.restart()
    await untilDrawn('daemon', 'ok', 30_000)
    await untilDrawn('storage--local', 'ok')
  })
})
