/**
 * Starting a QEMU: stripped of every right, in a sandbox, and not a child anybody must outlive.
 *
 * It runs under a uid nobody else has, so one guest's QEMU can touch neither another guest's disks nor the
 * node's files, with no capabilities and no way to gain any. `-daemonize` is not used: the sandbox
 * forbids the fork it needs; a session of its own serves the same end.
 */
import { chown, link, mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { passing } from '#base/trace.ts'
import { spawnDetached } from '#host/exec.ts'
import { makeDirectory, readForeignFile } from '#host/files.ts'
import type { Argv } from '#host/host.ts'
import { isAlive, startTimeOf } from '#host/programs/proc.ts'
import { QmpClient } from '#host/qemu/qmp.ts'
import type { ProcessName } from '../run-record.ts'
import { qmpSockets } from './command-line.ts'
import type { Accelerator } from './machine.ts'
import { missingSpice } from './spice.ts'

export interface Launch {
  readonly argv: readonly string[]
  readonly uid: number
  readonly accelerator: Accelerator
  /** Path of the network namespace to run in; absent: the node's. */
  readonly netnsPath?: string | undefined
  readonly runDir: string
  /** Open taps, inherited as 3, 4, … */
  readonly descriptors: readonly number[]
  /** Processors of the node to stay on. */
  readonly affinity?: string | undefined
  /** Groups beside its own, for files it shares with others. */
  readonly groups?: readonly number[]
}

export const qemuProgram = 'qemu-system-x86_64'
export const qemuLog = 'qemu.log'
/** Enough of a log's end to hold what a program said before it gave up. */
export const lastWordsBytes = 64 * KiB

export interface RunDirContent {
  readonly logs: readonly string[]
  /** Files it may write to: name here to path of the original. */
  readonly copies: Readonly<Record<string, string>>
  /** Name to content. */
  readonly files?: Readonly<Record<string, string>>
  /** Directory whose logs of the guest are to be gone on with: the same files, under a second name. */
  readonly logsFrom?: string | undefined
}

/** Makes the guest's run directory anew, with what is to be in it, and gives it to the guest's uid. */
export async function prepareRunDir(
  runDir: string,
  uid: number,
  { logs, copies, files = {}, logsFrom }: RunDirContent,
): Promise<void> {
  // Fresh, and root's until the logs in it are open: a directory its QEMU could write to might hold a
  // link to somewhere else under a log's name.
  await rm(runDir, { recursive: true, force: true })
  await makeDirectory(runDir.slice(0, runDir.lastIndexOf('/')))
  await mkdir(runDir, { mode: 0o700 })
  for (const name of logs) {
    const log = await open(`${runDir}/${name}`, 'wx', 0o600)
    await log.close()
  }
  if (logsFrom !== undefined) await shareLogs(logsFrom, runDir, logs)
  const contents: Record<string, string | Uint8Array> = { ...files }
  for (const [name, source] of Object.entries(copies)) contents[name] = await readFile(source)
  for (const [name, content] of Object.entries(contents)) {
    await writeFile(`${runDir}/${name}`, content, { mode: 0o600 })
    await chown(`${runDir}/${name}`, uid, uid)
  }
  await chown(runDir, uid, uid)
}

/** What a guest printed goes on where it was; what programs say of themselves begins anew. */
async function shareLogs(from: string, to: string, own: readonly string[]): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const { name } = entry
    // Whatever else its QEMU may have put there under such a name is none of ours.
    if (entry.isFile() && name.endsWith('.log') && !own.includes(name)) await link(`${from}/${name}`, `${to}/${name}`)
  }
}

/** Starts QEMU in its run directory. It is stopped before its first instruction. */
export async function launch(request: Launch): Promise<ProcessName> {
  const { argv, uid, netnsPath, runDir, descriptors, affinity } = request
  const prefix = netnsPath === undefined ? [] : ['nsenter', `--net=${netnsPath}`]
  if (affinity !== undefined) prefix.push('taskset', '--cpu-list', affinity)
  const groups = [...(await kvmGroup(request.accelerator)), ...(request.groups ?? [])]
  const command = [...prefix, ...stripped(uid, groups), qemuProgram, ...argv]
  const how = { outputFile: `${runDir}/${qemuLog}`, descriptors, cwd: '/' }
  const pid = await passing('program', qemuProgram, () => spawnDetached(asArgv(command), how))
  const startTime = await startTimeOf(pid)
  if (startTime === undefined) throw await refusal(runDir)
  return { pid, startTime }
}

/** Access to /dev/kvm is by its group, and only where it is used. */
async function kvmGroup(accelerator: Accelerator): Promise<number[]> {
  return accelerator === 'kvm' ? [(await stat('/dev/kvm')).gid] : []
}

/** What a program is started with to have no right but its uid's. */
export function stripped(uid: number, groups: readonly number[] = []): string[] {
  return [
    'setpriv',
    `--reuid=${uid}`,
    `--regid=${uid}`,
    groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups',
    '--no-new-privs',
    '--inh-caps=-all',
    '--bounding-set=-all',
  ]
}

export function asArgv([program, ...args]: readonly string[]): Argv {
  if (program === undefined) throw new Error('an empty command')
  return [program, ...args]
}

/** Waits for QEMU's monitor. @throws Fault `failed` with QEMU's own last words when it ends instead */
export async function untilMonitor(
  runDir: string,
  { pid, startTime, uid }: ProcessName & { readonly uid: number },
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<QmpClient> {
  const attempt = async () => {
    try {
      return await QmpClient.connect(`${runDir}/${qmpSockets.short}`, { listener: { pid, uid }, timeoutMs, signal })
    } catch (fault) {
      if (!isFault(fault, 'unavailable')) throw fault
      if (!(await isAlive(pid, startTime))) throw await refusal(runDir, fault)
      return undefined
    }
  }
  const waiting = { what: 'answer of QEMU', timeoutMs, everyMs: 3, signal }
  return passing('program', qemuProgram, () => waitFor(attempt, waiting))
}

async function refusal(runDir: string, cause?: unknown): Promise<Fault> {
  const { said, text } = await lastWordsOf(runDir)
  return (
    missingSpice(said, cause ?? text) ?? new Fault('failed', `QEMU did not start: ${said}`, { cause: cause ?? text })
  )
}

/** What the QEMU of that run directory said last, and all of it that is kept. */
export async function lastWordsOf(runDir: string): Promise<{ readonly said: string; readonly text: string }> {
  const text = (await readForeignFile(`${runDir}/${qemuLog}`, lastWordsBytes))?.toString('utf8') ?? ''
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('Use -'))
  return { said: lines.at(-1)?.replace(/^qemu-system-\w+: /, '') ?? 'it said nothing', text }
}
