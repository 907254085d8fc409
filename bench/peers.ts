/**
 * The peers: Debian's LXD and libvirt, brought for a benchmark and taken away after it.
 *
 * Only packages that were missing are removed again. Both run with what they need and nothing else, apart from any
 * other on this machine: LXD in a directory of its own, libvirt with directories of its own in a mount namespace;
 * each is asked over a connection that is kept, as our node is.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { request as httpRequest, Agent } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { waitFor } from '#base/clock.ts'

const run = promisify(execFile)

/** Installs what is missing; what was installed goes again at the end of the scope. */
export async function withPackages(...names: readonly string[]): Promise<AsyncDisposable> {
  const installed = async () => {
    const { stdout } = await run('dpkg-query', ['--show', '--showformat', '${db:Status-Status} ${Package}\n'])
    return new Set(
      stdout
        .split('\n')
        .filter((line) => line.startsWith('installed '))
        .map((line) => line.slice(10)),
    )
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const before = await installed()
  if (names.every((name) => before.has(name))) return { [Symbol.asyncDispose]: async () => {} }
  await run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...names], { env, maxBuffer: 1 << 26 })
  const added = [...(await installed())].filter((name) => !before.has(name))
  return {
    [Symbol.asyncDispose]: async () => {
      await run('apt-get', ['purge', '-y', '-qq', ...added], { env, maxBuffer: 1 << 26 })
    },
  }
}

export interface Peer extends AsyncDisposable {
  readonly pid: number
}

function daemon(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(program, args, { env: { ...process.env, ...env }, stdio: 'ignore', detached: true })
}

async function end(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.exitCode === null && child.signalCode === null && child.kill(signal)) await once(child, 'exit')
}

export interface Lxd extends Peer {
  /** Body of the reply, over a connection that is kept. */
  readonly get: (path: string) => Promise<Buffer>
  /** Calls what LXD does in the background and waits for its end, over the same connection; resolves with what came of it. */
  readonly operation: (method: 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown) => Promise<unknown>
  readonly lxc: (...args: string[]) => Promise<string>
  /** Ends the daemon and starts it again; resolves as soon as the process is there. */
  readonly restart: () => Promise<void>
}

/** LXD with an empty pool of directories, below `place`, and `count` stopped containers without content. */
export async function lxdWith(count: number, place = '/var/tmp'): Promise<Lxd> {
  await using undo = new AsyncDisposableStack()
  undo.use(await withPackages('lxd', 'lxd-client', 'squashfs-tools'))
  const directory = mkdtempSync(join(place, 'hako-lxd-'))
  undo.defer(async () => {
    // LXD keeps two mounts there, whichever way it ends.
    for (const name of ['shmounts', 'devlxd']) await run('umount', ['--lazy', join(directory, name)]).catch(() => {})
    rmSync(directory, { recursive: true, force: true })
  })
  const env = { LXD_DIR: directory }
  const start = () => daemon('lxd', ['--group', 'root'], env)
  let child = start()
  undo.defer(() => end(child, 'SIGKILL'))
  const lxc = async (...args: string[]) => {
    const asked = run('lxc', args, { env: { ...process.env, ...env }, maxBuffer: 1 << 28 })
    // It takes a configuration from standard input until that ends.
    asked.child.stdin?.end()
    return (await asked).stdout
  }
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  undo.defer(() => agent.destroy())
  const socket = join(directory, 'unix.socket')
  const get = (path: string) => httpGet(socket, path, agent)
  const answers = () =>
    waitFor(() => get('/1.0').catch(() => undefined), { what: 'LXD', timeoutMs: 60_000, everyMs: 5 })
  await answers()
  await lxc('storage', 'create', 'default', 'dir')
  await lxc('profile', 'device', 'add', 'default', 'root', 'disk', 'path=/', 'pool=default')
  for (let at = 0; at < count; at += 1) await lxc('init', '--empty', `guest-${100 + at}`)
  const release = undo.move()
  return {
    get pid() {
      return child.pid ?? 0
    },
    get,
    async operation(method, path, body) {
      const begun = JSON.parse((await httpCall(socket, { method, path, body }, agent)).toString()) as LxdReply
      const ended = JSON.parse((await get(`${begun.operation}/wait`)).toString()) as LxdReply
      const { err = begun.error, metadata } = ended.metadata ?? {}
      if (ended.error !== '' || err !== '') throw new Error(`LXD: ${method} ${path}: ${ended.error || err}`)
      return metadata
    },
    lxc,
    async restart() {
      agent.destroy()
      await end(child, 'SIGKILL')
      child = start()
    },
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

interface LxdReply {
  readonly operation: string
  readonly error: string
  readonly metadata?: { readonly err?: string; readonly metadata?: unknown }
}

/** The same client for whoever speaks HTTP on a socket. */
export function httpGet(socketPath: string, path: string, agent: Agent): Promise<Buffer> {
  return httpCall(socketPath, { method: 'GET', path }, agent)
}

interface HttpCall {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly path: string
  /** Sent as JSON. */
  readonly body?: unknown
}

export function httpCall(socketPath: string, { method, path, body }: HttpCall, agent: Agent): Promise<Buffer> {
  const sent = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
  const headers = {
    Host: 'localhost',
    ...(sent === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': sent.length }),
  }
  return new Promise((resolve, reject) => {
    const asked = httpRequest({ socketPath, method, path, agent, headers }, (reply) => {
      const parts: Buffer[] = []
      reply.on('data', (part: Buffer) => parts.push(part))
      reply.on('error', reject)
      reply.on('end', () => resolve(Buffer.concat(parts)))
    })
    asked.on('error', reject)
    asked.end(sent)
  })
}

export interface Libvirt extends Peer {
  /** For other clients of it. */
  readonly uri: string
  /** Runs a step of `libvirt-steps.py` on its kept connection; resolves with the milliseconds it took. */
  readonly step: (...words: readonly string[]) => Promise<number>
}

/** libvirt with `count` defined domains `guest-<id>`, from the given XML. */
export async function libvirtWith(count: number, xmlOf: (name: string) => string): Promise<Libvirt> {
  await using undo = new AsyncDisposableStack()
  undo.use(await withPackages('libvirt-daemon-system', 'libvirt-clients', 'python3-libvirt'))
  const child = daemon('unshare', ['--mount', '--propagation', 'private', 'sh', '-euc', apart])
  const pid = child.pid ?? 0
  const socket = `/proc/${pid}/root/run/libvirt/libvirt-sock`
  const uri = `qemu+unix:///system?socket=${socket}`
  undo.defer(() => end(child))
  undo.defer(() => removeDomains(uri))
  // The file of its own tells it from another libvirt, whose socket is there until it has its directories.
  await waitFor(() => existsSync(`/proc/${pid}/root/run/libvirt/libvirtd.pid`) && existsSync(socket), {
    what: 'libvirt',
    timeoutMs: 60_000,
  })
  const client = spawn('/usr/bin/python3', [join(import.meta.dirname, 'libvirt-steps.py'), uri], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  undo.defer(() => end(client))
  const lines = createInterface({ input: client.stdout })[Symbol.asyncIterator]()
  const step = async (...words: readonly string[]) => {
    client.stdin.write(`${JSON.stringify(words)}\n`)
    const { value, done } = await lines.next()
    if (done === true) throw new Error(`libvirt did not do '${words[0]}'`)
    return Number(value)
  }
  for (let at = 0; at < count; at += 1) await step('define', xmlOf(`guest-${100 + at}`))
  const release = undo.move()
  return { pid, uri, step, [Symbol.asyncDispose]: () => release.disposeAsync() }
}

/**
 * Its directories are empty ones. Its guests run as root, who may use KVM: where the user they would have may not,
 * libvirt takes what it knows of QEMU for outdated, and asks QEMU anew, which takes seconds, before it defines or
 * starts a domain. Logs are files, as ours are: nothing has to run beside it.
 */
const apart = `
for directory in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt; do
  mkdir -p "$directory"
  mount -t tmpfs -o mode=0755 libvirt "$directory"
done
printf '%s\\n' 'stdio_handler = "file"' 'user = "root"' 'group = "root"' > /etc/libvirt/qemu.conf
exec /usr/sbin/libvirtd --pid-file /run/libvirt/libvirtd.pid
`

async function removeDomains(uri: string): Promise<void> {
  const { stdout } = await run('virsh', ['-c', uri, 'list', '--all', '--name'])
  for (const name of stdout.split('\n').filter((line) => line.startsWith('guest-'))) {
    await run('virsh', ['-c', uri, 'destroy', name]).catch(() => {})
    await run('virsh', ['-c', uri, 'undefine', '--checkpoints-metadata', name])
  }
}
