/**
 * Control groups: who may use how much, who is in it, and how to end all of it at once.
 *
 * Two worlds exist. In the unified one (v2) there is one tree; in the hybrid one (v1) each controller has
 * a tree of its own, and the v2 tree stays empty. `Cgroups.detect` reads what is mounted, then tries each
 * controller with a group of its own, because a controller can be mounted, or listed, and still refuse.
 * A group has the same name in every tree, such as `hakobune-lab/qemu-100`.
 *
 * Invariant: a limit that was asked for and cannot be kept is reported by `createGroup`, never dropped
 * in silence.
 */
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { allDone } from '#base/all-done.ts'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Controller, GroupLimits, LimitFile } from './cgroup-limits.ts'
import { countsSwap, limitFiles } from './cgroup-limits.ts'
import { childrenOf, isRemoved, pidsBelow, unlessGone } from './cgroup-tree.ts'
import { codeOf, readIfPresent } from '../files.ts'
import { statOf } from '../programs/proc.ts'

export interface GroupCounters {
  readonly memoryBytes: number | undefined
  /** Of that, files nobody has read for a while: the kernel takes them back before it lets anybody starve. */
  readonly idleCacheBytes: number
  readonly swapBytes: number
  readonly diskReadBytes: number
  readonly diskWriteBytes: number
  readonly cpuSeconds: number | undefined
}

/** Where the groups live: per controller (v1), or one tree and the controllers that work in it (v2). */
export type CgroupLayout =
  | {
      readonly version: 'v1'
      readonly trees: Readonly<Partial<Record<Controller, string>>>
      /** Others make groups there; here it is only looked at. */
      readonly cpuset?: string | undefined
      /** Where others may have made groups of the same names, which go with ours. */
      readonly others?: readonly string[]
    }
  | { readonly version: 'v2'; readonly tree: string; readonly controllers: readonly Controller[] }

const controllersOfInterest: readonly Controller[] = ['cpu', 'cpuacct', 'memory', 'pids', 'freezer', 'blkio']

/** The file by which a v1 controller shows, in a fresh group, that it is alive. */
const v1Sign: Readonly<Record<Controller, string>> = {
  cpu: 'cpu.shares',
  cpuacct: 'cpuacct.usage',
  memory: 'memory.limit_in_bytes',
  pids: 'pids.max',
  freezer: 'freezer.state',
  blkio: 'blkio.throttle.io_service_bytes',
}

/** Mounted hierarchies by `/proc/mounts`. A hybrid machine has both kinds; v1 wins, for it holds the controllers. */
export function parseMounts(text: string): {
  readonly v1: Partial<Record<Controller, string>>
  readonly v2: string | undefined
  readonly cpuset: string | undefined
  /** Every tree of the old kind, and the new one. */
  readonly all: readonly string[]
} {
  const v1: Partial<Record<Controller, string>> = {}
  const all: string[] = []
  let [v2, cpuset]: (string | undefined)[] = []
  for (const line of text.split('\n')) {
    const [, path = '', type, options = ''] = line.split(' ')
    if (type === 'cgroup2' || type === 'cgroup') all.push(path)
    if (type === 'cgroup2') v2 ??= path
    if (type !== 'cgroup') continue
    if (options.split(',').includes('cpuset')) cpuset ??= path
    for (const name of controllersOfInterest) if (options.split(',').includes(name)) v1[name] ??= path
  }
  return { v1, v2, cpuset, all }
}

export class Cgroups {
  readonly #layout: CgroupLayout

  constructor(layout: CgroupLayout) {
    this.#layout = layout
  }

  /**
   * Finds out what this machine offers.
   * @throws Fault `unavailable` when no hierarchy works.
   */
  static async detect(mounts?: string): Promise<Cgroups> {
    const found = parseMounts(mounts ?? (await readFile('/proc/mounts', 'utf8')))
    const trees: Partial<Record<Controller, string>> = {}
    for (const name of controllersOfInterest) {
      const tree = found.v1[name]
      if (tree !== undefined && (await works(tree, v1Sign[name]))) trees[name] = tree
    }
    if (Object.keys(trees).length > 0) {
      const others = found.all.filter((tree) => !Object.values(trees).includes(tree))
      return new Cgroups({ version: 'v1', trees, cpuset: found.cpuset, others })
    }
    if (found.v2 === undefined || !(await works(found.v2, 'cgroup.procs'))) {
      throw new Fault('unavailable', 'no control group hierarchy works: guests cannot be limited', {
        remedy: 'Mount cgroup2 on /sys/fs/cgroup, and run as root.',
      })
    }
    return new Cgroups({ version: 'v2', tree: found.v2, controllers: await enableControllers(found.v2) })
  }

  get layout(): CgroupLayout {
    return this.#layout
  }

  /**
   * Makes the group, or finds it, and sets its limits.
   * @returns the limits that were asked for and that this machine cannot keep
   */
  async createGroup(name: string, limits: GroupLimits = {}): Promise<{ unkept: (keyof GroupLimits)[] }> {
    for (const directory of this.#directories(name)) await mkdir(directory, { recursive: true })
    if (this.#layout.version === 'v2') {
      const parents = name.split('/').slice(0, -1)
      for (const at of parents.keys()) {
        await enableControllers(join(this.#layout.tree, ...parents.slice(0, at + 1)), this.#layout.controllers)
      }
    }
    return this.limit(name, limits)
  }

  /** Changes limits of a group that exists, also while it is in use. */
  async limit(name: string, limits: GroupLimits): Promise<{ unkept: (keyof GroupLimits)[] }> {
    const { files, unkept } = this.limitsAsFiles(limits)
    // The kernel holds memory to no more than memory and swap together: which of them goes first depends on the way.
    const both = files.filter(({ limit }) => limit === 'swapBytes')
    for (const { controller, file, value } of both) {
      await writeFile(join(this.#directoryOf(controller, name) ?? '', file), value).catch(() => {})
    }
    for (const { controller, file, value } of files) {
      await setLimit(join(this.#directoryOf(controller, name) ?? '', file), value)
    }
    return { unkept }
  }

  /** The files of a group, and what is in them, that keep these limits here; and the limits nothing here can keep. */
  limitsAsFiles(limits: GroupLimits): { files: LimitFile[]; unkept: (keyof GroupLimits)[] } {
    const files: LimitFile[] = []
    const unkept: (keyof GroupLimits)[] = []
    for (const [limit, controller, file, value] of limitFiles(limits, this.#layout.version)) {
      const top = this.#treeOf(controller)
      // Kernels can be told to count no swap; then there is no such file, at the top neither.
      const isThere = top !== undefined && (limit !== 'swapBytes' || countsSwap(top, this.#layout.version))
      if (isThere) files.push({ limit, controller, file, value })
      else unkept.push(limit)
    }
    return { files, unkept }
  }

  /** Halts everything in the group, or lets it go on. @throws Fault `timeout` */
  async freeze(name: string, frozen: boolean): Promise<void> {
    await this.#freeze(name, frozen)
    const what = `${frozen ? 'halting' : 'waking'} of the control group '${name}'`
    await waitFor(async () => (await this.isFrozen(name)) === frozen, { what, timeoutMs: 10_000, everyMs: 5 })
  }

  async isFrozen(name: string): Promise<boolean> {
    if (this.#layout.version === 'v2') {
      return /^frozen 1$/m.test((await this.#read('freezer', name, 'cgroup.events')) ?? '')
    }
    return (await this.#read('freezer', name, 'freezer.state'))?.trim() === 'FROZEN'
  }

  /** @throws Fault `missing` when it has ended already, `failed` */
  async addProcess(name: string, pid: number): Promise<void> {
    for (const directory of this.#directories(name)) {
      try {
        await writeFile(join(directory, 'cgroup.procs'), String(pid))
      } catch (cause) {
        if (codeOf(cause) === 'ESRCH') throw new Fault('missing', `process ${pid} has ended already`, { cause })
        throw new Fault('failed', `process ${pid} could not be put into the control group '${name}'`, { cause })
      }
    }
  }

  /** What the group uses now. Zero and nothing for a group that does not exist. */
  async counters(name: string): Promise<GroupCounters> {
    const isV2 = this.#layout.version === 'v2'
    const memory = await this.#read('memory', name, isV2 ? 'memory.current' : 'memory.usage_in_bytes')
    const cpu = await this.#read(isV2 ? 'cpu' : 'cpuacct', name, isV2 ? 'cpu.stat' : 'cpuacct.usage')
    const micros = isV2 ? Number(/^usage_usec (\d+)$/m.exec(cpu ?? '')?.[1] ?? 0) : Number(cpu ?? 0) / 1000
    const stat = (await this.#read('memory', name, 'memory.stat')) ?? ''
    const swap = isV2 ? await this.#read('memory', name, 'memory.swap.current') : field(stat, 'total_swap')
    return {
      memoryBytes: memory === undefined ? undefined : Number(memory),
      idleCacheBytes: Number(field(stat, isV2 ? 'inactive_file' : 'total_inactive_file') ?? 0),
      swapBytes: Number(swap ?? 0),
      ...(await this.#diskBytes(name)),
      cpuSeconds: cpu === undefined ? undefined : micros / 1_000_000,
    }
  }

  async #diskBytes(name: string): Promise<{ diskReadBytes: number; diskWriteBytes: number }> {
    const isV2 = this.#layout.version === 'v2'
    const text = await this.#read('blkio', name, isV2 ? 'io.stat' : 'blkio.throttle.io_service_bytes_recursive')
    const sum = (pattern: RegExp) =>
      [...(text ?? '').matchAll(pattern)].reduce((total, [, bytes]) => total + Number(bytes), 0)
    return isV2
      ? { diskReadBytes: sum(/\brbytes=(\d+)/g), diskWriteBytes: sum(/\bwbytes=(\d+)/g) }
      : { diskReadBytes: sum(/^\d+:\d+ Read (\d+)$/gm), diskWriteBytes: sum(/^\d+:\d+ Write (\d+)$/gm) }
  }

  /** Processors the group is held to, `0,2-3`; undefined without such a group or controller. */
  async processorsOf(name: string): Promise<string | undefined> {
    const { layout } = this
    const tree = layout.version === 'v2' ? layout.tree : layout.cpuset
    return tree === undefined ? undefined : (await readIfPresent(join(tree, name, 'cpuset.cpus')))?.trim()
  }

  /** Pids of the group and of those below it, in whatever tree they are. */
  async processes(name: string): Promise<number[]> {
    const lists = await Promise.all(this.#directories(name).map(pidsBelow))
    return [...new Set(lists.flat())]
  }

  /** Ends everything in the group and below it, and returns when nothing runs there. Idempotent. */
  async killAll(name: string): Promise<void> {
    await waitFor(
      async () => {
        const pids = await this.processes(name)
        if (pids.length === 0) return true
        // Frozen first: a process that forks faster than it is killed would otherwise win.
        await this.#freeze(name, true)
        for (const pid of pids) killPid(pid)
        await this.#freeze(name, false)
        // They have to get through the kernel's own tidying up, which halting them again would lengthen.
        await goneSoon(pids)
        return false
      },
      { what: `end of all processes of the control group '${name}'`, timeoutMs: 30_000, everyMs: 2 },
    )
  }

  /**
   * Removes the group with all groups below it; asks again while the kernel still empties it. Idempotent.
   * @throws Fault `timeout` when processes stay in it.
   */
  async removeGroup(name: string): Promise<void> {
    const removal = (directory: string) =>
      waitFor(async () => isRemoved(directory), {
        what: `removal of the control group '${directory}', which still has processes`,
        timeoutMs: 10_000,
        everyMs: 10,
      })
    // Together: one that cannot be removed does not keep the others.
    await allDone(this.directoriesOf(name).map(removal))
  }

  /** Where the group is, and where others may have made one of its name. */
  directoriesOf(name: string): string[] {
    const { layout } = this
    const others = layout.version === 'v1' ? (layout.others ?? []) : []
    return [...this.#directories(name), ...others.map((tree) => join(tree, name))]
  }

  /** Names of the groups directly below `parent`. */
  async list(parent: string): Promise<string[]> {
    const names = await Promise.all(this.#directories(parent).map(childrenOf))
    return [...new Set(names.flat())].toSorted()
  }

  #directories(name: string): string[] {
    if (!/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/.test(name) || name.split('/').some((part) => /^\.+$/.test(part))) {
      throw new Fault('invalid', `'${name}' is no name for a control group`)
    }
    const { layout } = this
    const trees = layout.version === 'v2' ? [layout.tree] : Object.values(layout.trees)
    return [...new Set(trees)].map((tree) => join(tree, name))
  }

  #directoryOf(controller: Controller, name: string): string | undefined {
    const tree = this.#treeOf(controller)
    return tree === undefined ? undefined : join(tree, name)
  }

  #treeOf(controller: Controller): string | undefined {
    const { layout } = this
    if (layout.version === 'v1') return layout.trees[controller]
    return isOf(layout.controllers, controller) ? layout.tree : undefined
  }

  async #read(controller: Controller, name: string, file: string): Promise<string | undefined> {
    const directory = this.#directoryOf(controller, name)
    return directory === undefined ? undefined : await readIfPresent(join(directory, file))
  }

  async #freeze(name: string, frozen: boolean): Promise<void> {
    const directory = this.#directoryOf('freezer', name)
    const [file, value] =
      this.#layout.version === 'v2'
        ? ['cgroup.freeze', frozen ? '1' : '0']
        : ['freezer.state', frozen ? 'FROZEN' : 'THAWED']
    if (directory !== undefined) await writeFile(join(directory, file), value).catch(unlessGone)
  }
}

/** Files of I/O and of freezing are in every group of the unified tree, or are not read. */
function isOf(controllers: readonly Controller[], wanted: Controller): boolean {
  return wanted === 'blkio' || controllers.includes(wanted)
}

async function setLimit(path: string, value: string): Promise<void> {
  try {
    await writeFile(path, value)
  } catch (cause) {
    throw new Fault('failed', `the limit ${value} was refused by ${path} (${codeOf(cause)})`, { cause })
  }
}

function field(text: string, name: string): string | undefined {
  return new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1]
}

let trials = 0

/** Whether a fresh group below `tree` shows the file `sign`. */
async function works(tree: string, sign: string): Promise<boolean> {
  const trial = join(tree, `hakobune-trial-${process.pid}-${++trials}`)
  try {
    await mkdir(trial, { recursive: true })
    return (await readdir(trial)).includes(sign)
  } catch (cause) {
    // Read-only, forbidden or full: whatever the reason, this tree serves nobody here.
    if (codeOf(cause) !== undefined) return false
    throw cause
  } finally {
    await rmdir(trial).catch(unlessGone)
  }
}

/** Hands controllers down to the groups below `directory`; returns those the kernel let through. */
async function enableControllers(
  directory: string,
  wanted: readonly Controller[] = ['cpu', 'memory', 'pids'],
): Promise<Controller[]> {
  const offered = (await readIfPresent(join(directory, 'cgroup.controllers')))?.trim().split(' ') ?? []
  const enabled: Controller[] = wanted.filter((name) => name === 'freezer')
  // Without `io` nothing counts what is read and written; without `cpuset` nobody is held to some processors.
  for (const name of [...wanted, 'io', 'cpuset'] as const) {
    if (!offered.includes(name)) continue
    try {
      await writeFile(join(directory, 'cgroup.subtree_control'), `+${name}`)
      if (name !== 'io' && name !== 'cpuset') enabled.push(name)
    } catch (cause) {
      // EBUSY: processes live in this very group, which v2 forbids beside controllers below it.
      if (!['EBUSY', 'EACCES', 'EPERM', 'EOPNOTSUPP'].includes(codeOf(cause) ?? '')) throw cause
    }
  }
  // Freezing is no controller in v2: every group can do it.
  return enabled.includes('freezer') ? enabled : [...enabled, 'freezer']
}

/** Waits a moment for these to be gone. */
async function goneSoon(pids: readonly number[]): Promise<void> {
  const areGone = async () => {
    for (const pid of pids) if (!hasEnded((await statOf(pid))?.state)) return false
    return true
  }
  await waitFor(areGone, { what: 'their end', timeoutMs: 200, everyMs: 2 }).catch((fault: unknown) => {
    if (!isFault(fault, 'timeout')) throw fault
  })
}

/** One that has ended may stay for as long as its parent does not ask how. */
function hasEnded(state = 'X'): boolean {
  return 'ZX'.includes(state)
}

function killPid(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (cause) {
    if (codeOf(cause) !== 'ESRCH') throw cause
  }
}
