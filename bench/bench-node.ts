/**
 * A node of its own for measuring: daemon and front as they run anywhere, no bridge, and a store filled
 * directly, because making a thousand guests by a thousand tasks measures something else. Removed without a
 * trace at the end of the scope.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import { daemonFlags } from '#base/node-flags.ts'
import { waitFor } from '#base/clock.ts'
import { asVmid } from '#base/ids.ts'
import { GuestDocuments } from '#guests/documents.ts'
import { machine } from '#host/exec.ts'
import { takeDown } from '#lab/down.ts'
import { type ApiClient, apiClient } from '#rest/client.ts'
import { unixTransport } from '#rest/transport.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import { type Settings, settingsToEnv } from '../src/settings.ts'
import { freePort, freshInstance } from '../test/own-names.ts'

export interface BenchNode extends AsyncDisposable {
  readonly settings: Settings
  readonly daemonPid: number
  readonly frontPid: number
  /** By root through the local socket. */
  readonly api: ApiClient<never>['raw']
  /** As `api`, of a whole path: the body as text. */
  readonly get: (path: string) => Promise<string>
  /** The node's certificate (PEM). */
  readonly certificate: string
  /** Kills the daemon and starts it again; resolves as soon as the process is there. */
  readonly restart: () => Promise<void>
}

export interface BenchNodeOptions {
  /** So many configured and stopped guests, from id 100 on. */
  readonly guests?: number
  /** A module for the daemon to load first. */
  readonly preload?: string
  /** Where its state is kept. Default: /var/tmp. */
  readonly place?: string
}

export async function benchNode({ guests = 0, preload, place }: BenchNodeOptions = {}): Promise<BenchNode> {
  const settings = await freshSettings(place)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => takeDown({ settings, host: machine() }).then(() => {}))
  await configureGuests(settings, guests)
  const transport = undo.use(unixTransport(join(settings.runDir, 'api.sock')))
  const api = apiClient<never>(transport.send).raw
  const start = () => startDaemon(settings, preload)
  let daemon = start()
  const end = (signal: NodeJS.Signals) => daemon.end(signal)
  undo.defer(() => end('SIGTERM'))
  await daemon.until(() => api('GET', '/version'))
  const certificate = readFileSync(join(settings.stateDir, 'keys', 'tls.pem'), 'utf8')
  const release = undo.move()
  return {
    settings,
    get daemonPid() {
      return daemon.pid
    },
    get frontPid() {
      return frontOf(daemon.pid)
    },
    api,
    get: async (target) => {
      const { status, body } = await transport.send({ method: 'GET', target, headers: {} })
      if (status !== 200) throw new Error(`${target}: ${status}`)
      return body
    },
    certificate,
    async restart() {
      await end('SIGKILL')
      daemon = start()
    },
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

interface Daemon {
  readonly pid: number
  readonly end: (signal: NodeJS.Signals) => Promise<void>
  /** Resolves once the question is answered. */
  readonly until: (ask: () => Promise<unknown>) => Promise<void>
}

function startDaemon(settings: Settings, preload: string | undefined): Daemon {
  const said: string[] = []
  const flags = preload === undefined ? daemonFlags : [...daemonFlags, `--import=${preload}`]
  const child = spawn(process.execPath, [...flags, join(root, 'src/main.ts')], {
    env: { ...settingsToEnv(settings), BENCH_LAG_FILE: lagFileOf(settings) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  child.stderr.on('data', (part: Buffer) => said.push(part.toString()))
  let isWanted = true
  child.once('exit', (code, signal) => {
    if (isWanted) process.stderr.write(`the daemon ended (${code ?? signal}):\n${said.slice(-20).join('')}`)
  })
  return {
    pid: child.pid ?? 0,
    async end(signal) {
      isWanted = false
      if (child.exitCode === null && child.signalCode === null && child.kill(signal)) await once(child, 'exit')
    },
    async until(ask) {
      const answered = async () => {
        if (child.exitCode !== null) throw new Error(`the daemon ended:\n${said.join('')}`)
        return ask().then(
          () => true,
          () => false,
        )
      }
      await waitFor(answered, { what: 'the daemon', timeoutMs: 60_000 })
    },
  }
}

/** Where `loop-lag.ts` writes. */
export function lagFileOf({ stateDir }: Settings): string {
  return join(stateDir, 'loop-lag')
}

const root = join(import.meta.dirname, '..')

/** The daemon's one child that stays: `setpriv`, which became Node. */
function frontOf(daemonPid: number): number {
  const children = readFileSync(`/proc/${daemonPid}/task/${daemonPid}/children`, 'utf8').trim().split(' ')
  const isFront = (pid: string) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('front.ts')
  return Number(children.find(isFront))
}

async function freshSettings(place = '/var/tmp'): Promise<Settings> {
  const instance = freshInstance('b')
  const stateDir = mkdtempSync(join(place, `hako-${instance}-`))
  await chmod(stateDir, 0o711)
  mkdirSync('/run/hakobune-bench', { recursive: true, mode: 0o711 })
  return {
    instance,
    node: 'bench',
    stateDir,
    runDir: `/run/hakobune-bench/${instance}`,
    cacheDir: '/var/cache/hakobune',
    apiHost: '127.0.0.1',
    apiPort: await freePort(),
    bridge: 'none',
    uidBase: 1_000_000_000,
  }
}

async function configureGuests({ stateDir, node }: Settings, count: number): Promise<void> {
  await using store = await openSqliteStore(join(stateDir, 'store.sqlite'))
  const documents = new GuestDocuments(store, node)
  await Promise.all(
    Array.from({ length: count }, (_, at) =>
      documents.create(asVmid(100 + at), { kind: 'qemu', options: optionsOf(100 + at) }),
    ),
  )
}

/** As real guests are: two disks, a network card, an agent. */
function optionsOf(vmid: number): Record<string, string> {
  const mac =
    `BC:24:11:00:${(vmid >> 8).toString(16).padStart(2, '0')}:${(vmid & 255).toString(16).padStart(2, '0')}`.toUpperCase()
  return {
    name: `guest-${vmid}`, memory: '2048', cores: '2', sockets: '1', ostype: 'l26', agent: '1', onboot: '1', tags: 'bench;web',
    scsihw: 'virtio-scsi-single', boot: 'order=scsi0', net0: `virtio=${mac},bridge=vmbr0,firewall=1`,
    scsi0: `local:${vmid}/vm-${vmid}-disk-0.qcow2,size=32G`, scsi1: `local:${vmid}/vm-${vmid}-disk-1.qcow2,size=100G`,
    description: 'A guest that exists in order to be listed.',
  } // prettier-ignore
}
