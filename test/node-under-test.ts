/**
 * A real node for tests: its own daemon, store, network and guests beside whatever else runs here, reached
 * as clients reach it, and removed without a trace at the end of the scope.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { daemonFlags } from '#base/node-flags.ts'
import { waitFor } from '#base/clock.ts'
import { connectionTo, type Connection, type Params } from '../src/cli/connection.ts'
import { Fault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { accessLogName } from '#http/access-log.ts'
import { inNetns } from '#host/network/netns.ts'
import { takeDown } from '#lab/down.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { ownBridge, type Settings, settingsToEnv } from '../src/settings.ts'
import { recordedCalls } from '../tools/recorded-calls.ts'
import { readNodeAlone } from './fixtures/read-alone.ts'
import { freePort, freshInstance } from './own-names.ts'
import { untilEnded } from './task-end.ts'

const root = join(import.meta.dirname, '..')

export interface TaskEnd {
  readonly exitstatus: string
  readonly log: string
}

export interface TestNode extends AsyncDisposable {
  readonly settings: Settings
  readonly connection: Connection
  /** `https://127.0.0.1:port` */
  readonly url: string
  /** `data` of a call by root through the local socket. */
  readonly api: (method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, params?: Params) => Promise<unknown>
  /** Waits for a task; fails the test when it did not end with OK, unless told otherwise. */
  readonly task: (upid: unknown, expected?: RegExp) => Promise<TaskEnd>
  /** Creates a guest from the tiny image and starts it; resolves once its agent answers. */
  readonly boot: (vmid: number, options?: Readonly<Record<string, string>>) => Promise<void>
  /** Runs a program in the guest and returns what it printed. */
  readonly sh: (vmid: number, script: string) => Promise<string>
  readonly kill9: () => Promise<void>
  readonly restart: () => Promise<void>
}

export interface NodeOptions {
  /** A client that is not ours and has the public port to itself: what it calls is kept for the conformance report. */
  readonly client?: string
  /** Network namespace that is the whole network of the node. */
  readonly netns?: string
  /** Settings that differ. */
  readonly changes?: Partial<Settings>
}

export async function nodeUnderTest({ client, netns, changes = {} }: NodeOptions = {}): Promise<TestNode> {
  const settings = { ...(await freshSettings()), ...changes }
  let daemon = startDaemon(settings, netns)
  const connection = connectionTo(
    settings.runDir,
    (path) =>
      new Fault('unavailable', `no node at ${path}; the daemon said:\n${outputs.get(daemon)?.slice(-20).join('')}`),
  )
  await untilReady(connection, daemon)
  const api: TestNode['api'] = async (method, path, params) => (await connection.call(method, path, params)).data
  // Somebody has its recovery key: it may make backups.
  const { key } = (await api('POST', '/hako/recovery-key')) as { key: string }
  await api('PUT', '/hako/recovery-key', { key })
  const node = settings.node
  const task: TestNode['task'] = async (upid, expected = /^OK$/) => {
    assert.match(String(upid), /^UPID:/)
    const path = `/nodes/${node}/tasks/${encodeURIComponent(String(upid))}`
    await untilEnded(settings, String(upid), 240_000)
    const status = (await api('GET', `${path}/status`)) as { status: string; exitstatus?: string }
    assert.equal(status.status, 'stopped')
    const lines = (await api('GET', `${path}/log`, { limit: '0' })) as { t: string }[]
    const log = lines.map(({ t }) => t).join('\n')
    assert.match(status.exitstatus ?? '', expected, log)
    return { exitstatus: status.exitstatus ?? '', log }
  }
  const agent = (vmid: number, command: string) => `/nodes/${node}/qemu/${vmid}/agent/${command}`
  const sh: TestNode['sh'] = async (vmid, script) => {
    const { pid } = (await api('POST', agent(vmid, 'exec'), { command: ['/bin/sh', '-c', script] })) as { pid: number }
    const ended = await waitFor(
      async () => {
        const status = (await api('GET', agent(vmid, 'exec-status'), { pid: String(pid) })) as {
          exited: number
          exitcode?: number
          'out-data'?: string
          'err-data'?: string
        }
        return status.exited === 1 ? status : undefined
      },
      // Each question is work for the guest, whose processor is emulated.
      { what: script, timeoutMs: 60_000, everyMs: 100 },
    )
    assert.equal(ended.exitcode, 0, ended['err-data'] ?? script)
    return (ended['out-data'] ?? '').trimEnd()
  }
  return {
    settings,
    connection,
    url: `https://127.0.0.1:${settings.apiPort}`,
    api,
    task,
    sh,
    async boot(vmid, options = {}) {
      const image = await ensureGuestImage({ host: machine(), cacheDir: settings.cacheDir })
      const net0 = `virtio,bridge=${ownBridge(settings)}`
      const guest = {
        vmid: String(vmid),
        name: `t${vmid}`,
        memory: '192',
        agent: '1',
        serial0: 'socket',
        net0,
        scsi0: `local:0,import-from=${image.path}`,
        scsihw: 'virtio-scsi-pci',
        boot: 'order=scsi0',
      }
      await task(await api('POST', `/nodes/${node}/qemu`, { ...guest, ...options }))
      await task(await api('POST', `/nodes/${node}/qemu/${vmid}/status/start`))
      await waitFor(
        () =>
          api('POST', agent(vmid, 'ping')).then(
            () => true,
            () => false,
          ),
        { what: `agent of guest ${vmid}`, timeoutMs: 90_000, everyMs: 100 },
      )
    },
    async kill9() {
      daemon.kill('SIGKILL')
      await waitFor(() => daemon.exitCode !== null || daemon.signalCode !== null, {
        what: 'death of the daemon',
        timeoutMs: 60_000,
      })
    },
    async restart() {
      daemon = startDaemon(settings, netns)
      await untilReady(connection, daemon)
    },
    async [Symbol.asyncDispose]() {
      daemon.kill('SIGTERM')
      await waitFor(() => daemon.exitCode !== null || daemon.signalCode !== null, {
        what: 'end of the daemon',
        timeoutMs: 60_000,
      }).catch(() => daemon.kill('SIGKILL'))
      if (client !== undefined) await keepCalls(client, settings)
      try {
        await readNodeAlone(settings.stateDir, { kind: 'recovery', text: key })
      } finally {
        await takeDown({ settings, host: machine() })
      }
    },
  }
}

/** What answered over the public port: by `GET /path/{param}`. */
async function keepCalls(client: string, { stateDir }: Settings): Promise<void> {
  const calls = (await readFile(join(stateDir, accessLogName), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { from?: string; method: string; endpoint?: string; status: number })
    .filter(({ from, endpoint, status }) => from !== undefined && endpoint !== undefined && status < 300)
    .map(({ method, endpoint }) => `${method} ${endpoint}`)
  const file = join(recordedCalls, `${client}.json`)
  const before = JSON.parse(await readFile(file, 'utf8').catch(() => '[]')) as string[]
  await mkdir(recordedCalls, { recursive: true })
  await writeFile(file, JSON.stringify([...new Set([...before, ...calls])].toSorted()))
}

/** Output of each daemon under test, for the message of a test that fails. */
const outputs = new WeakMap<ChildProcess, string[]>()

function startDaemon(settings: Settings, netns: string | undefined): ChildProcess {
  const command = [process.execPath, ...daemonFlags, join(root, 'src/main.ts')] as const
  const [program, ...args] = inNetns(netns, command)
  const daemon = spawn(program, args, {
    env: { ...settingsToEnv(settings) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output: string[] = []
  outputs.set(daemon, output)
  daemon.stdout.on('data', (part: Buffer) => output.push(part.toString()))
  daemon.stderr.on('data', (part: Buffer) => output.push(part.toString()))
  return daemon
}

async function untilReady(connection: Connection, daemon: ChildProcess): Promise<void> {
  await waitFor(
    async () => {
      if (daemon.exitCode !== null)
        throw new Error(`the daemon ended with ${daemon.exitCode}:\n${outputs.get(daemon)?.join('')}`)
      return connection.call('GET', '/version').then(
        () => true,
        () => false,
      )
    },
    { what: 'the daemon', timeoutMs: 60_000 },
  )
}

async function freshSettings(): Promise<Settings> {
  const instance = freshInstance('t')
  const stateDir = await mkdtemp(`/var/tmp/hako-${instance}-`)
  await chmod(stateDir, 0o711)
  await mkdir('/run/hakobune-test', { recursive: true, mode: 0o711 })
  return {
    instance,
    node: 'testnode',
    stateDir,
    runDir: `/run/hakobune-test/${instance}`,
    cacheDir: '/var/cache/hakobune',
    apiHost: '127.0.0.1',
    apiPort: await freePort(),
    bridge: 'nat',
    uidBase: 1_000_000_000,
  }
}

/** Everything a drill wrote about itself. */
export async function evidenceFile(directory: string, name: string): Promise<string> {
  return readFile(join(directory, name), 'utf8')
}
