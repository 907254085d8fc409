/** What a running container uses, by its control group, its init and its file system. */
import { statfs } from 'node:fs/promises'
import type { Cgroups } from '#host/cgroups/cgroup.ts'
import { initOf } from '#host/lxc/lxc.ts'
import { isAlive, startTimeOf, uptimeSeconds } from '#host/programs/proc.ts'
import type { Use } from '../counters.ts'
import type { ContainerRecord } from '../run-record.ts'
import { memoryBytesOf } from './limits.ts'

const ticksPerSecond = 100

/** Undefined when it ended meanwhile. */
export async function useOf(
  { process: monitor, options }: ContainerRecord,
  { cgroups, group }: { readonly cgroups: Cgroups; readonly group: string },
): Promise<Use | undefined> {
  const [init, counters, isFrozen, uptime] = await Promise.all([
    initOf(monitor.pid),
    cgroups.counters(group),
    cgroups.isFrozen(group),
    uptimeSeconds(),
  ])
  const startTime = init === undefined ? undefined : await startTimeOf(init)
  if (init === undefined || startTime === undefined) {
    return (await isAlive(monitor.pid, monitor.startTime)) ? idle(monitor.pid) : undefined
  }
  const disk = await diskOf(init)
  const { memoryBytes = 0, idleCacheBytes, cpuSeconds = 0, swapBytes, diskReadBytes, diskWriteBytes } = counters
  const used = Math.max(0, memoryBytes - idleCacheBytes)
  return {
    ageSeconds: Math.max(uptime - startTime / ticksPerSecond, 0.01),
    cpuSeconds,
    facts: {
      pid: init,
      qmpStatus: isFrozen ? 'frozen' : 'running',
      memoryBytes: Math.min(used, memoryBytesOf(options)),
      hostMemoryBytes: memoryBytes,
      swapBytes,
      ...disk,
      diskReadBytes,
      diskWriteBytes,
      machine: '',
      qemuVersion: '',
      isOutdated: false,
    },
  }
}

/** Between its end and its next start, when it reboots. */
function idle(pid: number): Use {
  const nothing = { memoryBytes: 0, hostMemoryBytes: 0, swapBytes: 0, diskBytes: 0, diskSizeBytes: 0 }
  const facts = { pid, qmpStatus: 'running', ...nothing, diskReadBytes: 0, diskWriteBytes: 0 }
  return { ageSeconds: 0.01, cpuSeconds: 0, facts: { ...facts, machine: '', qemuVersion: '', isOutdated: false } }
}

async function diskOf(init: number): Promise<{ diskBytes: number; diskSizeBytes: number }> {
  try {
    const { blocks, bfree, bsize } = await statfs(`/proc/${init}/root`)
    return { diskBytes: (blocks - bfree) * bsize, diskSizeBytes: blocks * bsize }
  } catch {
    // It ended while it was looked at.
    return { diskBytes: 0, diskSizeBytes: 0 }
  }
}
