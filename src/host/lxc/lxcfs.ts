/**
 * What a container is told of memory, processors and uptime: a file system of LXC's that answers by the limits of
 * whoever reads. One process serves all containers of a node. It outlives the daemon, because a container whose
 * `/proc/meminfo` is gone is a broken one, and has a control group of its own: it is nobody's child.
 *
 * When it dies another is started. Containers that ran then get no answer from those files until their next start: the
 * new one is another mount, which cannot be put where they see the old one without running a program of theirs.
 *
 * Who may run beside whom: two that start it at once both ask again; the kernel lets both mount, and the later one is
 * what new containers see.
 */
import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import type { Cgroups } from '../cgroups/cgroup.ts'
import { spawnDetached } from '../exec.ts'
import { makeDirectory, readIfPresent } from '../files.ts'
import type { Host } from '../host.ts'
import { mountPoints } from '../disks/mount.ts'
import { commandLineOf } from '../programs/proc.ts'

const startLimitMs = 5_000
/** It takes 2 MiB for a few containers, and a thread for each that reads. */
const [mostMemory, mostThreads] = [256 * MiB, 512]
/** What is served, below the place of the mount. */
export const servedFiles = ['cpuinfo', 'diskstats', 'loadavg', 'meminfo', 'stat', 'swaps', 'uptime'] as const
export const servedProcessors = 'sys/devices/system/cpu'

export interface Lxcfs {
  /** Where it is mounted. */
  readonly target: string
}

export interface LxcfsWish {
  readonly directory: string
  /** Where its process belongs. */
  readonly group: { readonly cgroups: Cgroups; readonly name: string }
}

/** Sees to it that it is served in `directory`. @throws Fault `missing` when it is not installed, `timeout` */
export async function ensureLxcfs(host: Host, { directory, group }: LxcfsWish): Promise<Lxcfs> {
  const target = targetIn(directory)
  const isThere = async () => (await isServed(target)) && !(await lxcfsHasDied(directory))
  if (await isThere()) return { target }
  // Of one that died the mount stays, and answers nothing.
  if ((await mountPoints()).includes(target)) await host.run(['umount', '-l', target], { okCodes: [0, 32] })
  await makeDirectory(directory)
  await makeDirectory(target)
  await rm(join(directory, 'pid'), { force: true })
  const pid = await spawnDetached(
    ['lxcfs', '-f', '--enable-cfs', '--enable-pidfd', '-p', join(directory, 'pid'), target],
    {
      outputFile: join(directory, 'lxcfs.log'),
      cwd: '/',
    },
  )
  await group.cgroups.createGroup(group.name, { memoryBytes: mostMemory, pids: mostThreads })
  await group.cgroups.addProcess(group.name, pid)
  await waitFor(isThere, { what: `lxcfs on '${target}'`, timeoutMs: startLimitMs, everyMs: 5 })
  return { target }
}

/** Whether it was started here and has ended: the mount is there, and nobody behind it. Never waits for an answer. */
export async function lxcfsHasDied(directory: string): Promise<boolean> {
  const target = targetIn(directory)
  if (!(await mountPoints()).includes(target)) return false
  const pid = Number(await readIfPresent(join(directory, 'pid')))
  return !(await commandLineOf(pid)).includes(target)
}

function targetIn(directory: string): string {
  return join(directory, 'fs')
}

/** The kernel also remembers for a second what one that has died had answered. */
async function isServed(target: string): Promise<boolean> {
  return stat(join(target, 'proc/meminfo')).then(
    (found) => found.isFile(),
    () => false,
  )
}
