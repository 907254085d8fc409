/**
 * The program that serves disks of a backup, each on a socket that one user alone can reach.
 *
 * The directory of its sockets is in its arguments, so that it is found by whoever looks. That directory is root's: what is
 * in it its clients can use, not change.
 */
import { rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { spawnDetached } from '../exec.ts'
import { codeOf, isThere, makeDirectory, readForeignFile } from '../files.ts'
import { holdFolder } from '../files/folder-lock.ts'
import type { Argv } from '../host.ts'
import { endProcess, findProcesses, isAlive, startTimeOf } from '../programs/proc.ts'

export interface DiskServerProgram {
  readonly command: Argv
  readonly env: Readonly<Record<string, string>>
}

export interface ServedDisks {
  readonly program: DiskServerProgram
  /** Volume id of the backup. */
  readonly from: string
  readonly disks: readonly string[]
  readonly directory: string
  /** Who alone may connect. */
  readonly uid: number
  /** It ends when this process does, however. Default: it outlives it. */
  readonly isBound?: boolean
}

interface How {
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

const logName = 'server.log'
const logMaximumBytes = 1024 * 1024
const startLimitMs = 30_000
const endGraceMs = 1_000
/** Somebody before us may wait as long as he may for a server that does not come. */
const aloneLimitMs = 2 * startLimitMs
/** What begins a line that says what cannot be read. */
export const unreadableMark = 'unreadable: '
/** Gives its sockets away, reads what root may read wherever it lies, and can do nothing else a root can. */
const confined = ['--no-new-privs', '--inh-caps=-all', '--bounding-set=-all,+chown,+dac_read_search'] as const

export const diskSocket = (directory: string, disk: string) => join(directory, `${disk}.sock`)
const argumentOf = (directory: string) => `--sockets=${directory}`

/**
 * Starts the server where there is none, and returns the socket of each disk once a client can connect.
 * @throws Fault `failed` with the server's last words
 */
export async function serveDisks(served: ServedDisks, how: How = {}): Promise<Readonly<Record<string, string>>> {
  const { program, from, disks, directory, uid, isBound = false } = served
  const sockets = Object.fromEntries(disks.map((disk) => [disk, diskSocket(directory, disk)]))
  await makeDirectory(dirname(directory))
  // Two who found none at the same moment would take each other's sockets away.
  await using _ = await alone(directory, how.signal)
  await makeDirectory(directory)
  const [running] = await serversIn(directory)
  const log = join(directory, logName)
  if (running !== undefined) {
    await untilServed(Object.values(sockets), { pid: running, uid, log }, how)
    return sockets
  }
  for (const name of [...Object.values(sockets), log]) await rm(name, { force: true })
  const bound = isBound ? ['--pdeathsig=KILL'] : []
  const told = [argumentOf(directory), `--uid=${uid}`, `--from=${from}`, ...disks]
  const pid = await spawnDetached(['setpriv', ...bound, ...confined, ...program.command, ...told], {
    outputFile: log,
    cwd: '/',
    env: program.env,
  })
  await untilServed(Object.values(sockets), { pid, uid, log }, how)
  return sockets
}

/**
 * Harmless when there is none.
 * @param isUnused asked while nobody can start one
 */
export async function endDiskServer(
  directory: string,
  isUnused: () => Promise<boolean> = async () => true,
): Promise<void> {
  // Most never had one, and looking through all processes takes its time.
  if (!(await isThere(directory))) return
  await using _ = await alone(directory)
  if (!(await isUnused())) return
  for (const pid of await serversIn(directory)) await endProcess(pid, await startTimeOf(pid), { graceMs: endGraceMs })
  await rm(directory, { recursive: true, force: true })
}

/** Among all who start or end servers in folders beside this one. */
function alone(directory: string, signal?: AbortSignal): Promise<AsyncDisposable> {
  return holdFolder(dirname(directory), { timeoutMs: aloneLimitMs, signal })
}

/** What it could not read so far, a sentence each. */
export async function unreadableIn(directory: string): Promise<readonly string[]> {
  const lines = await linesOf(join(directory, logName))
  return lines.flatMap((line) => (line.startsWith(unreadableMark) ? [line.slice(unreadableMark.length)] : []))
}

async function serversIn(directory: string): Promise<number[]> {
  return findProcesses((argv) => argv.includes(argumentOf(directory)))
}

interface Launched {
  readonly pid: number
  readonly uid: number
  readonly log: string
}

async function untilServed(
  sockets: readonly string[],
  { pid, uid, log }: Launched,
  { timeoutMs = startLimitMs, signal }: How,
): Promise<void> {
  const startTime = (await startTimeOf(pid)) ?? -1
  const serves = async () => {
    for (const socket of sockets) {
      // Giving it away is the last the server does before a client can connect.
      const facts = await stat(socket).catch(absent)
      if (facts?.uid === uid) continue
      if (await isAlive(pid, startTime)) return false
      const said = (await linesOf(log)).at(-1) ?? 'its server said nothing'
      throw new Fault('failed', `the backup cannot be served: ${said}`)
    }
    return true
  }
  try {
    await waitFor(serves, { what: 'the server of the backup', timeoutMs, everyMs: 5, signal })
  } catch (fault) {
    await endProcess(pid, startTime, { graceMs: 0 })
    throw fault
  }
}

async function linesOf(log: string): Promise<string[]> {
  const text = (await readForeignFile(log, logMaximumBytes))?.toString('utf8') ?? ''
  return text.split('\n').filter((line) => line !== '')
}

function absent(cause: unknown): undefined {
  if (codeOf(cause) !== 'ENOENT') throw cause
}
