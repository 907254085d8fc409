/**
 * Runs a program that asks the web and cannot be trusted to ask what it should: it follows where a server leads it.
 *
 * It runs under a user of its own, without any capability, in a network namespace with nothing in it but a loopback,
 * and sees one folder at a place of its own. Its one way out is a proxy on that loopback: this file, run as a program
 * in there, which carries every connection over a unix socket to `way-out.ts` in the process that asked. All of it ends
 * with that process, and nothing of it has a name that could be left behind but a folder of a socket.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chown, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, isIPv4 } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Fault } from '#base/fault.ts'
import { makeDirectory } from '../files.ts'
import type { Argv, Host, RunResult } from '../host.ts'
import { isAlive, startTimeOf } from '../programs/proc.ts'
import { endTogether, openWayOut, type WayOutOptions } from './way-out.ts'

export interface SealedRun extends WayOutOptions {
  readonly argv: Argv
  readonly uid: number
  /** Seen by the program as `sealedFolder`, its working directory, and given to it; one that goes again when absent. */
  readonly folder?: string | undefined
  /** Where sockets of this node are; users of its own may pass through. */
  readonly runDir: string
  /** PEM of the authorities it believes. */
  readonly trusted: readonly string[]
  /** Programs leave a proxy out for a server on the loopback: such a one, where it may be asked, as `127.0.0.1:5000`. */
  readonly local?: string | undefined
  readonly timeoutMs: number
  /** Most bytes of one file it may write. */
  readonly fileBytes: number
  readonly outputBytes?: number
  readonly onLine?: (line: string) => void
  readonly signal?: AbortSignal | undefined
}

/** Where a sealed program finds its folder. */
export const sealedFolder = '/mnt'

interface Inside {
  readonly socket: string
  readonly uid: number
  readonly folder: string
  readonly local: string | undefined
  readonly argv: Argv
}

let made = 0

/** @throws Fault of the first address that was refused; else as `Host.run` */
export async function runSealed(host: Host, run: SealedRun): Promise<RunResult> {
  await using undo = new AsyncDisposableStack()
  const { uid, local, argv, runDir, timeoutMs, signal } = run
  const place = await placeOfSocket(runDir)
  undo.defer(() => rm(place, { recursive: true, force: true }))
  const folder = run.folder ?? join(place, 'folder')
  if (run.folder === undefined) await mkdir(folder, { mode: 0o700 })
  await writeFile(join(folder, 'trusted.pem'), run.trusted.join('\n'), { mode: 0o644 })
  undo.defer(() => rm(join(folder, 'trusted.pem'), { force: true }))
  await chown(folder, uid, uid)
  const socket = join(place, 'way-out')
  const way = undo.use(await openWayOut(socket, run))
  await chown(socket, uid, uid)
  const inside: Inside = { socket, uid, folder, local, argv: bounded(argv, run.fileBytes) }
  const seal = ['setpriv', '--pdeathsig=KILL', '--', 'unshare', '--net', '--mount', '--'] as const
  const program = [process.execPath, fileURLToPath(import.meta.url), JSON.stringify(inside)] as const
  try {
    return await host.run([...seal, ...program], {
      timeoutMs,
      signal: AbortSignal.any([way.ended, ...(signal ? [signal] : [])]),
      ...(run.outputBytes === undefined ? {} : { outputBytes: run.outputBytes }),
      ...(run.onLine ? { onLine: run.onLine } : {}),
    })
  } catch (cause) {
    throw way.refused() ?? cause
  }
}

function bounded(argv: Argv, fileBytes: number): Argv {
  return ['prlimit', `--fsize=${fileBytes}`, '--core=0', '--', ...argv]
}

/** A folder of this process; those of dead ones go. */
async function placeOfSocket(runDir: string): Promise<string> {
  const all = join(runDir, 'sealed')
  await makeDirectory(all)
  for (const name of await readdir(all)) {
    const [pid, startTime] = name.split('-').map(Number)
    if (!(await isAlive(pid ?? 0, startTime ?? 0))) await rm(join(all, name), { recursive: true, force: true })
  }
  made += 1
  const place = join(all, `${process.pid}-${(await startTimeOf(process.pid)) ?? 0}-${made}`)
  await mkdir(place, { mode: 0o711 })
  return place
}

/** Inside: gives up what it is, starts the program, carries its connections, and ends as it does. */
async function runInside({ socket, uid, folder, local, argv: [program, ...args] }: Inside): Promise<number> {
  must('mount', '--bind', folder, sealedFolder)
  must('ip', 'link', 'set', 'lo', 'up')
  const servers = [createServer((client) => carry(client, socket))]
  servers[0]?.listen(0, '127.0.0.1')
  const [, host = '', port = '443'] = /^([^:]+)(?::(\d+))?$/.exec(local ?? '') ?? []
  if (host !== '') {
    const server = createServer((client) => carry(client, socket, `CONNECT ${host}:${port} HTTP/1.1\r\n\r\n`))
    servers.push(server.listen(Number(port), isIPv4(host) ? host : '127.0.0.1'))
  }
  for (const server of servers) if (!server.listening) await once(server, 'listening')
  const address = servers[0]?.address()
  const proxy = `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`
  const rights = ['--clear-groups', '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--pdeathsig=KILL']
  const child = spawn('setpriv', [`--reuid=${uid}`, `--regid=${uid}`, ...rights, '--', program, ...args], {
    cwd: sealedFolder,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      PATH: '/usr/local/bin:/usr/bin:/bin',
      LC_ALL: 'C.UTF-8',
      HOME: sealedFolder,
      TMPDIR: sealedFolder,
      XDG_RUNTIME_DIR: sealedFolder,
      SSL_CERT_FILE: `${sealedFolder}/trusted.pem`,
      SSL_CERT_DIR: sealedFolder,
      HTTPS_PROXY: proxy,
    },
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return code ?? 1
}

function must(program: string, ...args: string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Fault('failed', `${program}: ${stderr?.trim() || (error?.message ?? `status ${status}`)}`)
}

/** @param first what is said to the proxy before the program speaks; its answer is read here */
function carry(client: ReturnType<typeof connect>, socket: string, first?: string): void {
  const way = connect(socket)
  endTogether(client, way)
  if (first === undefined) {
    client.pipe(way).pipe(client)
    return
  }
  way.write(first)
  way.once('data', (answer: Buffer) => {
    const end = answer.indexOf('\r\n\r\n')
    if (!answer.toString('latin1').startsWith('HTTP/1.1 200') || end < 0) return void way.destroy()
    client.write(answer.subarray(end + 4))
    client.pipe(way).pipe(client)
  })
}

async function main(): Promise<void> {
  try {
    process.exitCode = await runInside(JSON.parse(process.argv[2] ?? '') as Inside)
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
  process.exit()
}

// Not awaited: a file that awaits cannot be loaded by `require`.
if (import.meta.main) void main()
