/** How this process stands in the queue for disks, for a while (as `ionice`): for what does much and is in no hurry. */
import { readdirSync } from 'node:fs'
import ffi from 'node:ffi'

const [SYS_ioprio_set, SYS_ioprio_get] = process.arch === 'arm64' ? [30n, 31n] : [251n, 252n]
const IOPRIO_WHO_PROCESS = 1n
const [bestEffort, idle] = [2n << 13n, 3n << 13n]

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', { syscall: { arguments: ['i64', 'i64', 'i64', 'i64'], return: 'i64' } }).functions
}

/**
 * 0 to 7 within the ordinary class, 7 being the last; 8: only when nobody else wants the disk. It counts where the
 * disk's scheduler looks at it; a kernel that has none is as good as one that does not.
 * @returns whose end gives back what was: the process may have something else to do afterwards
 */
export function ioPriority(priority: number): Disposable {
  const before = BigInt(libc().syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0n, 0n))
  give(priority === 8 ? idle : bestEffort | BigInt(priority))
  return { [Symbol.dispose]: () => give(before < 0n ? 0n : before) }
}

/** Each thread has a priority of its own, and passes it on to those it starts. */
function give(priority: bigint): void {
  for (const thread of readdirSync('/proc/self/task')) {
    libc().syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, BigInt(thread), priority)
  }
}
