/**
 * The lab's daemon: found, started, ended.
 *
 * It is known by what the kernel says of it (its program and the run directory in its environment), not by
 * a pid file, which survives a crash with a number that may be another's by then.
 */
import { readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { daemonFlags } from '#base/node-flags.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { spawnDetached } from '#host/exec.ts'
import { codeOf, makeDirectory } from '#host/files.ts'
import { commandLineOf, endProcess, findProcesses, isAlive, startTimeOf, statOf } from '#host/programs/proc.ts'
import { settingsToEnv, type Settings } from '#settings.ts'

const entries = ['main.ts', 'front.ts', 'worker.ts', 'disk-server.ts', 'run-worker.ts']
const startMs = 30_000

export function daemonLog(settings: Settings): string {
  return join(settings.stateDir, 'daemon.log')
}

/** Pids of the node's own programs, the daemon first. */
export async function nodeProcesses({ runDir }: Pick<Settings, 'runDir'>): Promise<number[]> {
  const pids = await findProcesses((argv) => argv.some(isEntry))
  const own: number[] = []
  for (const pid of pids) {
    const environment = await environmentOf(pid)
    if (environment?.HAKO_RUN_DIR === runDir) own.push(pid)
  }
  return own
}

/** The pid of the daemon itself. */
export async function daemonPid(settings: Pick<Settings, 'runDir'>): Promise<number | undefined> {
  for (const pid of await nodeProcesses(settings)) {
    if ((await commandLineOf(pid)).some((word) => word.endsWith('/src/main.ts'))) return pid
  }
  return undefined
}

function isEntry(word: string): boolean {
  return entries.includes(basename(word)) && basename(dirname(word)) === 'src'
}

/** The variables a process was started with; nothing when it is gone. */
export async function environmentOf(pid: number): Promise<Readonly<Record<string, string>> | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/environ`, 'utf8')
    return Object.fromEntries(
      text.split('\0').map((pair) => [pair.split('=', 1)[0] ?? '', pair.replace(/^[^=]*=/, '')]),
    )
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return undefined
    throw error
  }
}

/** Whether the node runs now, and on which port. */
export async function runningPort(settings: Pick<Settings, 'runDir'>): Promise<number | undefined> {
  const pid = await daemonPid(settings)
  if (pid === undefined) return undefined
  const port = (await environmentOf(pid))?.HAKO_API_PORT
  return port === undefined ? undefined : Number(port)
}

/**
 * Starts the daemon, in a session of its own, and returns when `answers` is true.
 * @throws Fault `failed` with its last words when it ends before.
 */
export async function startDaemon(
  settings: Settings,
  answers: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  await makeDirectory(settings.stateDir)
  const program = join(import.meta.dirname, '../main.ts')
  const argv = [process.execPath, ...daemonFlags, program] as const
  const pid = await spawnDetached(argv, { outputFile: daemonLog(settings), env: settingsToEnv(settings), cwd: '/' })
  const startTime = await startTimeOf(pid)
  await waitFor(
    async () => {
      if (startTime === undefined || !(await isAlive(pid, startTime))) throw await lastWords(settings)
      return answers()
    },
    { what: `the node's socket in '${settings.runDir}'`, timeoutMs: startMs, everyMs: 50, signal },
  )
}

async function lastWords(settings: Settings): Promise<Fault> {
  const text = await readFile(daemonLog(settings), 'utf8').catch(() => '')
  const lines = text.trimEnd().split('\n').slice(-5)
  return new Fault('failed', `the node ended while it started: ${lines.join('\n')}`, {
    remedy: `Its whole log: ${daemonLog(settings)}`,
  })
}

/** Asks every program of the node to end, and ends what does not. Idempotent. @returns how many there were */
export async function stopNode(settings: Pick<Settings, 'runDir'>, graceMs = 10_000): Promise<number> {
  const mine = await ownAncestry()
  const pids = (await nodeProcesses(settings)).filter((pid) => !mine.has(pid))
  for (const pid of pids) await endProcess(pid, await startTimeOf(pid), { graceMs })
  return pids.length
}

/** This process and those it was started by: a lab that removes itself does not begin with itself. */
async function ownAncestry(): Promise<Set<number>> {
  const chain = new Set<number>()
  for (let pid: number | undefined = process.pid; pid !== undefined && pid > 0; pid = await parentOf(pid))
    chain.add(pid)
  return chain
}

async function parentOf(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  const parent = /^PPid:\t(\d+)$/m.exec(text)?.[1]
  return parent === undefined ? undefined : Number(parent)
}

/** Resolves when the daemon is gone, or rejects with kind `aborted` when the signal fires. */
export async function untilDaemonEnds(settings: Pick<Settings, 'runDir'>, signal: AbortSignal): Promise<void> {
  const pid = await daemonPid(settings)
  if (pid === undefined) return
  const startTime = (await statOf(pid))?.startTime
  while (startTime !== undefined && (await isAlive(pid, startTime))) await systemClock.sleep(500, signal)
}
