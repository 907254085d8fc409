/** The picture of a node follows what happens to it: whoever is killed is drawn so within five seconds. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { waitFor } from '#base/clock.ts'
import type { Architecture } from '#views/architecture/graph.ts'
import { logIn, method, proofOf, publicPort, type PublicReply } from '../contract/public-port.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const withinMs = 5_000
const timing = ({ headers }: PublicReply) => [headers['server-timing'] ?? []].flat().join(', ')

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
    const drawer = spawn(process.execPath, cli, { env: env(), stdio: 'ignore' })
    closing.defer(() => void drawer.kill('SIGKILL'))
    await untilDrawn('vm--101', 'ok', 30_000)
  })
  after(() => closing.disposeAsync())

  const env = () => ({ ...process.env, HAKO_RUN_DIR: node.settings.runDir, LANG: 'C' })

  /** Labels by part, as drawn of a request that is made. */
  async function wayOf(request: string, level: string) {
    const words = ['--disable-warning=ExperimentalWarning', 'src/cli/main.ts', 'diagram', '--level', level]
    const cli = await promisify(execFile)(process.execPath, [...words, '--request', request], { env: env() })
    const [, title = ''] = /class="way-title"[^>]*>([^<]*)/.exec(cli.stdout) ?? []
    const isOn = [...cli.stdout.matchAll(/<g id="([^"]+)" class="part \w+"/g)].map(([, id]) => id)
    const labels = [...cli.stdout.matchAll(/class="way-label">.*?<text[^>]*>([^<]*)/g)].map(([, text = '']) => text)
    return { title, isOn, labels }
  }

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

  test('the way of a request is what it really passed, and the times add up to what the client saw', async () => {
    const { title, isOn, labels } = await wayOf('GET /nodes/testnode/qemu/101/status/current', '2')
    assert.deepEqual(
      isOn,
      ['client--hako', 'daemon', 'front', 'state', 'vm--101'].toSorted((a, b) => isOn.indexOf(a) - isOn.indexOf(b)),
    )
    const [, whole] =
      /^GET \/nodes\/testnode\/qemu\/101\/status\/current → 200 OK, ([\d.]+) ms in all$/.exec(title) ?? []
    const [client = NaN, front = NaN, daemon = NaN, ...others] = labels.map((text) =>
      Number(/([\d.]+) ms/.exec(text)?.[1]),
    )
    assert.equal(labels.filter((text) => text.startsWith('QMP ')).length, 1)
    const sum = [client, front, daemon, ...others].reduce((all, ms) => all + ms, 0)
    // The store is read while QEMU is asked, so what is added up may be more, and is never less.
    assert.ok(client > 0 && front > 0 && daemon > 0 && sum > Number(whole) * 0.98, `${labels.join(', ')} of ${title}`)
  })

  test('the way of a request that starts a task goes on in the task, down to QEMU', async () => {
    await node.task(await node.api('POST', '/nodes/testnode/qemu', { vmid: '102', memory: '32' }))
    const { title, isOn, labels } = await wayOf('POST /nodes/testnode/qemu/102/status/start', '1')
    assert.match(title, /→ 200 OK, [\d.]+ ms in all; the task [\d.]+ m?s$/)
    for (const part of ['client--hako', 'front', 'daemon', 'task', 'state', 'qemu', 'vm'])
      assert.ok(isOn.includes(part), part)
    assert.match(labels.join('\n'), /qemu-system-x86_64 [\d.]+ m?s/)
    assert.match(labels.join('\n'), /in the task [\d.]+ m?s/)
  })

  test('how long the node took is told to who may know how it is; a session by the local socket is given there alone', async () => {
    const base = `${node.url}/api2/json`
    const trace = ['-H', 'x-hakobune-trace: 1']
    const root = (await node.api('POST', '/hako/front-ticket')) as { ticket: string; CSRFPreventionToken: string }
    const asRoot = publicPort(base, proofOf({ ticket: root.ticket, csrf: root.CSRFPreventionToken }))
    assert.match(timing(await asRoot('/version', ...trace)), /daemon;dur=.*front;dur=/s)
    assert.equal(timing(await asRoot('/version')), '')
    const [userid, password] = ['mallory@pve', 'correct horse battery']
    await node.api('POST', '/access/users', { userid, password })
    const asked = publicPort(base, proofOf(await logIn(base, userid, password)))
    assert.match(timing(await asked('/version', ...trace)), /^front;dur=[\d.]+$/)
    assert.equal((await asRoot('/hako/front-ticket', ...method('POST'))).status, 403)
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
