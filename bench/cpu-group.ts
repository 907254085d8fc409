/**
 * Processor time of everything a service does, also by processes it starts and lets go: counted by the kernel for a
 * group of processes with all that are ever in it, the dead ones too.
 *
 * Only time is counted there, nothing is limited: a group of the old kind has a tree of its own for that. What LXC
 * starts moves itself elsewhere; where to is said in the container's configuration.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Cgroups } from '#host/cgroups/cgroup.ts'

export interface CpuGroup extends AsyncDisposable {
  /** As LXC wants it: below the root of each tree. */
  readonly name: string
  /** For these processes it counts, and for what they start from now on. */
  readonly add: (...pids: readonly number[]) => void
  readonly cpuMs: () => number
}

/** Empty at first; whoever is in it, or below it, at the end of the scope is ended. */
export async function cpuGroup(name: string): Promise<CpuGroup> {
  const { directory, remove } = await directoryOf(name)
  mkdirSync(directory, { recursive: true })
  return {
    name,
    add(...pids) {
      for (const pid of pids) writeFileSync(join(directory, 'cgroup.procs'), String(pid))
    },
    cpuMs: () => usedMs(directory),
    [Symbol.asyncDispose]: remove,
  }
}

/** Of a group somebody else makes; nothing until then. */
export async function cpuMsOfGroup(name: string): Promise<() => number> {
  const { directory } = await directoryOf(name)
  return () => usedMs(directory)
}

async function directoryOf(name: string): Promise<{ directory: string; remove: () => Promise<void> }> {
  const cgroups = await Cgroups.detect()
  const { layout } = cgroups
  const tree = layout.version === 'v1' ? layout.trees.cpuacct : layout.tree
  if (tree === undefined) throw new Error('nothing counts processor time here')
  const remove = async () => {
    await cgroups.killAll(name)
    await cgroups.removeGroup(name)
  }
  return { directory: join(tree, name), remove }
}

function usedMs(directory: string): number {
  const read = (file: string) => {
    try {
      return readFileSync(join(directory, file), 'utf8')
    } catch {
      return undefined
    }
  }
  const old = read('cpuacct.usage')
  if (old !== undefined) return Number(old) / 1e6
  return Number(/^usage_usec (\d+)$/m.exec(read('cpu.stat') ?? '')?.[1] ?? 0) / 1e3
}
