/** What Node is told when it runs one of our programs. */
import { join } from 'node:path'

/**
 * Any of them. The launcher `hako` says the same. Young objects have half the room V8 gives them, of which it has three: they are
 * collected as quickly, and what works through a large datastore takes that much less memory.
 */
export const nodeFlags = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=8',
  `--require=${join(import.meta.dirname, './known-modules.ts')}`,
] as const

/**
 * The process of a task. Most end within a second, and do not get back what V8 spends on compiling for speed by then: only
 * what is called twenty times as often as V8 would have it is compiled like that, which in a long task happens soon enough.
 * Nor what it spends on collecting twice in each: old objects may take three times what the last collection left.
 */
export const taskFlags = [
  ...nodeFlags,
  '--heap-growing-percent=200',
  '--invocation-count-for-maglev=8000',
  '--invocation-count-for-turbofan=30000',
] as const

/**
 * The daemon. Its objects are small and either short-lived or kept for good, so a small nursery collects as well as a
 * large one and is worth 38 MiB with 1,000 guests: 2 MiB instead of 16, of which V8 has three.
 */
export const daemonFlags = [...nodeFlags, '--max-semi-space-size=2'] as const
