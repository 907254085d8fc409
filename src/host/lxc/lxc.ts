/**
 * Containers by the tools of LXC. A container is known by the directory that holds its folder, and by its name there.
 *
 * `lxc-start` leaves a monitor behind, which is the parent of the container's init and leads it through reboots; it
 * belongs to nobody else, so containers outlive whoever starts them.
 */
import { randomUUID } from 'node:crypto'
import { existsSync, renameSync, symlinkSync } from 'node:fs'
import { readFile, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { searchPath } from '../exec.ts'
import { codeOf, makeDirectory, readIfPresent } from '../files.ts'
import type { Argv, Host } from '../host.ts'
import { startTimeOf } from '../programs/proc.ts'

export interface ContainerPlace {
  /** Directory that holds `<name>/config`. */
  readonly directory: string
  readonly name: string
}

export interface ContainerStart {
  readonly place: ContainerPlace
  /** Folder of the caller's for links to programs, the same for all containers. */
  readonly programs: string
  /** Files of the caller's: what LXC has to say, and the pid of its monitor. */
  readonly logFile: string
  readonly pidFile: string
  /** Namespace of the network to start in; absent: the machine's. */
  readonly netnsPath?: string | undefined
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** What LXC may find. With newuidmap it would go through two shells and two programs to have its map looked over. */
const programs = ['lxc-start', 'nsenter', 'apparmor_parser'] as const

/**
 * Starts the container and returns its monitor once its init runs. Whether root may hand out the ids of its map is the
 * caller's to know (`requireAllowed`).
 * @throws Fault `failed` with LXC's own words
 */
export async function startContainer(
  host: Host,
  { place, programs: folder, logFile, pidFile, netnsPath, timeoutMs, signal }: ContainerStart,
): Promise<{ readonly pid: number; readonly startTime: number }> {
  const { directory, name } = place
  await rm(pidFile, { force: true })
  await linkPrograms(folder)
  const prefix = netnsPath === undefined ? [] : ['nsenter', `--net=${netnsPath}`]
  const start = ['lxc-start', '--daemon', '-n', name, '-P', directory, '-p', pidFile, '-o', logFile, '-l', 'WARN']
  const [program = 'lxc-start', ...args] = [...prefix, ...start]
  try {
    // What it leaves behind is not to hold our pipes, nor to be told of our environment.
    await host.run([program, ...args], { timeoutMs, signal, cwd: '/', env: { PATH: folder } })
  } catch (fault) {
    if (!isFault(fault, 'failed')) throw fault
    throw new Fault('failed', `the container did not start: ${lastErrorIn(await readIfPresent(logFile))}`, {
      cause: fault,
    })
  }
  const pid = Number((await readFile(pidFile, 'utf8')).trim())
  const startTime = await startTimeOf(pid)
  if (startTime === undefined) {
    throw new Fault('failed', `the container ended at once: ${lastErrorIn(await readIfPresent(logFile))}`)
  }
  return { pid, startTime }
}

/** Others may be starting containers by these links at the same moment. */
export async function linkPrograms(folder: string): Promise<void> {
  await makeDirectory(folder)
  for (const name of programs) {
    const link = join(folder, name)
    const program = searchPath.map((directory) => join(directory, name)).find(existsSync)
    if (program === undefined || existsSync(link)) continue
    const next = join(folder, `.${randomUUID()}`)
    symlinkSync(program, next)
    renameSync(next, link)
  }
}

/** What went wrong, of LXC's log: the first error, for the later ones only say that it had followers. */
export function lastErrorIn(log = ''): string {
  const errors = [...log.matchAll(/^\S+ \S+ \S+ ERROR +\w+ - [^ ]+?:\w+:\d+ - (.*)$/gm)].map(([, text]) => text)
  return errors[0] ?? 'LXC said nothing'
}

/** The container's init, as the child of its monitor; undefined when there is none (any more). */
export async function initOf(monitor: number): Promise<number | undefined> {
  const children = await readIfPresent(`/proc/${monitor}/task/${monitor}/children`)
  const [pid] = (children ?? '').trim().split(' ').filter(Boolean).map(Number)
  return pid
}

export interface Attachment {
  readonly command: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

/** The command that runs another one inside, with nothing of our environment. */
export function attachArgv({ directory, name }: ContainerPlace, { command, env = {} }: Attachment): Argv {
  const variables = Object.entries(env).flatMap(([key, value]) => ['-v', `${key}=${value}`])
  return ['lxc-attach', '-n', name, '-P', directory, '--clear-env', ...variables, '--', ...command]
}

/** The command that is joined to one of the container's terminals; 0 is its console, -1 any that is free. */
export function consoleArgv({ directory, name }: ContainerPlace, tty: number): Argv {
  // Any is what it takes when nobody says which; a number that is none it does not read.
  const which = tty < 0 ? [] : ['-t', String(tty)]
  return ['lxc-console', '-n', name, '-P', directory, ...which, '-e', '-1']
}

const initSignals = { realTimeMin3: 37, power: 30, user2: 12 } as const

/** Tells the container's init to shut down, in the words that one listens to. */
export async function tellToShutDown(init: number): Promise<void> {
  process.kill(init, await haltSignalOf(init))
}

async function haltSignalOf(init: number): Promise<number> {
  return haltSignalBy((await readIfPresent(`/proc/${init}/status`)) ?? '')
}

/**
 * systemd waits for one signal, busybox for another; the rest follow the one of a failing power supply.
 *
 * busybox takes them off its queue one at a time, the lowest number first, and a child of its that ends at once and is
 * started again each second is such a number: the power supply's comes after it, and so never. It is known by waiting
 * for its signals blocked, where others have them interrupt it.
 * @param status of the kernel
 */
export function haltSignalBy(status: string): number {
  const has = (number: number, ...masks: string[]) =>
    masks.some((name) => {
      const mask = BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0'}`)
      return (mask & (1n << BigInt(number - 1))) !== 0n
    })
  const { realTimeMin3, power, user2 } = initSignals
  if (has(realTimeMin3, 'SigBlk', 'SigCgt')) return realTimeMin3
  if (has(user2, 'SigBlk')) return user2
  return !has(power, 'SigBlk', 'SigCgt') && has(user2, 'SigCgt') ? user2 : power
}

export function configPathOf({ directory, name }: ContainerPlace): string {
  return join(directory, name, 'config')
}

const locks = '/run/lxc/lock'

/** Removes all locks of containers below that directory. */
export async function removeLocksBelow(directory: string): Promise<void> {
  await rm(join(locks, directory), { recursive: true, force: true })
}

/** Removes the lock LXC leaves for every name it ever heard, and the folders it made for it. */
export async function removeLocks({ directory, name }: ContainerPlace): Promise<void> {
  let folder = join(locks, directory)
  await rm(join(folder, `.${name}`), { force: true })
  for (; folder !== locks; folder = dirname(folder)) {
    try {
      await rmdir(folder)
    } catch (cause) {
      if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(codeOf(cause) ?? '')) throw cause
      if (codeOf(cause) !== 'ENOENT') return
    }
  }
}
