/** How this process stands in the queue for disks (`ionice`): for programs that do much and are in no hurry. */
import { readdir } from 'node:fs/promises'
import type { Host } from '../host.ts'

/**
 * 0 to 7 within the ordinary class, 7 being the last; 8: only when nobody else wants the disk. It counts where the
 * disk's scheduler looks at it.
 */
export async function setIoPriority(host: Host, priority: number): Promise<void> {
  // Each thread has a priority of its own, and passes it on to those it starts.
  const threads = await readdir('/proc/self/task')
  const how = priority === 8 ? ['--class', '3'] : ['--class', '2', '--classdata', String(priority)]
  await host.run(['ionice', '--ignore', ...how, '--pid', ...threads])
}
