/**
 * What a container is told of memory, processors and uptime: a file system of LXC's that answers by the limits of
 * whoever reads. One process serves all containers of a node. It outlives the daemon, because a container whose
 * `/proc/meminfo` is gone is a broken one.
 *
 * Who may run beside whom: two that start it at once both ask again; the kernel lets both mount, and the later one is
 * what new containers see.
 */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { spawnDetached } from './exec.ts'
import { makeDirectory } from './files.ts'
import type { Host } from './host.ts'
import { mountPoints } from './mount.ts'

const startLimitMs = 5_000
/** What is served, below the place of the mount. */
export const servedFiles = ['cpuinfo', 'diskstats', 'loadavg', 'meminfo', 'stat', 'swaps', 'uptime'] as const
export const servedProcessors = 'sys/devices/system/cpu'

export interface Lxcfs {
  /** Where it is mounted. */
  readonly target: string
}

/** Sees to it that it is served at `directory`. @throws Fault `missing` when it is not installed, `timeout` */
export async function ensureLxcfs(host: Host, directory: string): Promise<Lxcfs> {
  const target = join(directory, 'fs')
  await makeDirectory(directory)
  await makeDirectory(target)
  if (await isServed(target)) return { target }
  // Of one that died the mount stays, and answers nothing.
  if ((await mountPoints()).includes(target)) await host.run(['umount', '-l', target], { okCodes: [0, 32] })
  await spawnDetached(['lxcfs', '-f', '--enable-cfs', '--enable-pidfd', '-p', join(directory, 'pid'), target], {
    outputFile: join(directory, 'lxcfs.log'),
    cwd: '/',
  })
  await waitFor(() => isServed(target), { what: `lxcfs on '${target}'`, timeoutMs: startLimitMs, everyMs: 5 })
  return { target }
}

async function isServed(target: string): Promise<boolean> {
  return stat(join(target, 'proc/meminfo')).then(
    (found) => found.isFile(),
    () => false,
  )
}
