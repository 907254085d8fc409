/**
 * The program that serves what disks of a guest still lack, from the backup they are restored from.
 *
 * It lives beside the guest's QEMU and outlives whoever started it; the directory of its sockets is in its arguments, so
 * that it is found by whoever looks. It may be killed at any moment: QEMU waits, and connects to the one that is started
 * in its place. That directory is root's: what is in it the guest can use, not change.
 */
import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { spawnDetached } from '#host/exec.ts'
import { codeOf, makeDirectory, readForeignFile } from '#host/files.ts'
import type { Argv } from '#host/host.ts'
import { endProcess, findProcesses, isAlive, startTimeOf } from '#host/proc.ts'
import type { Filling } from '../config.ts'

export interface DiskServerProgram {
  readonly command: Argv
  readonly env: Readonly<Record<string, string>>
}

interface Needs {
  readonly settings: { readonly runDir: string; readonly uidBase: number }
  readonly diskServer?: DiskServerProgram
}

interface How {
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

const logName = 'server.log'
const logMaximumBytes = 1024 * 1024
const startLimitMs = 30_000
const endGraceMs = 1_000
/** What begins a line that says what cannot be read. */
export const unreadableMark = 'unreadable: '
/** Reads what root may read, gives its sockets away, and can do nothing else a root can. */
const confined = ['setpriv', '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all,+chown'] as const

export const belowSocket = (directory: string, drive: string) => join(directory, `${drive}.sock`)
const argumentOf = (directory: string) => `--sockets=${directory}`

export class DiskServers {
  readonly #needs: Needs

  constructor(needs: Needs) {
    this.#needs = needs
  }

  #directoryOf(vmid: Vmid): string {
    return join(this.#needs.settings.runDir, 'below', String(vmid))
  }

  /**
   * Sockets of what is below drives, by their names; starts the server where there is none.
   * @throws Fault `failed` with the server's last words
   */
  async serve(vmid: Vmid, { from, drives }: Filling, how: How = {}): Promise<Readonly<Record<string, string>>> {
    const { settings, diskServer } = this.#needs
    const directory = this.#directoryOf(vmid)
    const sockets = Object.fromEntries(drives.map((drive) => [drive, belowSocket(directory, drive)]))
    if ((await serversIn(directory)).length > 0) return sockets
    if (!diskServer) throw new Error('there is no program that serves disks')
    await makeDirectory(directory)
    const [uid, log] = [settings.uidBase + vmid, join(directory, logName)]
    for (const name of [...Object.values(sockets), log]) await rm(name, { force: true })
    const told = [argumentOf(directory), `--uid=${uid}`, `--from=${from}`, ...drives]
    const pid = await spawnDetached([...confined, ...diskServer.command, ...told], {
      outputFile: log,
      cwd: '/',
      env: diskServer.env,
    })
    await untilServed(Object.values(sockets), { pid, uid, log }, how)
    return sockets
  }

  /** Ends the server, of disks that are whole or of a guest that has ended. Harmless when there is none. */
  async end(vmid: Vmid): Promise<void> {
    const directory = this.#directoryOf(vmid)
    // Most guests never had one, and looking through all processes takes its time.
    if (!(await isThere(directory))) return
    for (const pid of await serversIn(directory)) await endProcess(pid, await startTimeOf(pid), { graceMs: endGraceMs })
    await rm(directory, { recursive: true, force: true })
  }

  /** What it could not read so far, a sentence each. */
  async unreadable(vmid: Vmid): Promise<readonly string[]> {
    const lines = await linesOf(join(this.#directoryOf(vmid), logName))
    return lines.flatMap((line) => (line.startsWith(unreadableMark) ? [line.slice(unreadableMark.length)] : []))
  }
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

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(absent)) !== undefined
}

function absent(cause: unknown): undefined {
  if (codeOf(cause) !== 'ENOENT') throw cause
}
