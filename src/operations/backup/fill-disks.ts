/**
 * Copies to where they belong the disks of a guest that runs from its backup, until nothing is left below them.
 *
 * Every drive of such a guest is an image that was empty when the guest first started, on top of what `disk-server.ts`
 * serves; what the guest writes goes into the image. What is still missing is written down with the guest and nowhere else,
 * so this may end at any moment, and so may everything around it: nothing is undone and nothing is lost, the next run goes
 * on with what is there. The guest may be stopped meanwhile; its next start finds the same images on the same backup.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Clock } from '#base/clock.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import type { Filling } from '#guests/config.ts'
import { servedNodeName } from '#guests/qemu/drive-argv.ts'
import { nodeNameOf } from '#guests/qemu/drive-device.ts'
import type { GuestService } from '#guests/service.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import { operation, type StepContext } from '#tasks/operation.ts'

export interface FillDisks {
  readonly vmid: number
}

export interface FillDeps {
  readonly guests: GuestService
  readonly clock: Clock
}

const pollMs = 200
const jobOf = (drive: string) => `fill-${drive}`

/** Not the guest's own lock: it may be started and stopped meanwhile. Everything else is refused, for it is locked. */
export const fillDisks = operation<FillDisks, FillDeps>('qmfill', {
  id: ({ vmid }) => vmid,
  locks: ({ vmid }) => [`filling/${vmid}`],
}).step('disks', {
  // No undo: what was copied is as good as what was not.
  async do(context) {
    const { params, deps, log } = context
    const vmid = asVmid(params.vmid)
    const { filling } = await deps.guests.config(vmid)
    if (!filling) return log('its disks are whole')
    log(`the disks of VM ${vmid} are copied from ${filling.from} while it runs`)
    const unread = new Set<string>()
    for (const [number, drive] of filling.drives.entries()) {
      const share = (fraction: number) => (number + fraction) / filling.drives.length
      const how = { vmid, drive, filling, unread, share }
      // All at once would make each slower, and the guest with them.
      if (!(await fill(context, how))) return log(`VM ${vmid} has ended; its next start goes on with what is missing`)
    }
    if (unread.size === 0) return
    throw new Fault('damaged', `${unread.size} parts of the backup cannot be read: the guest has everything else`, {
      remedy:
        'Back up another guest with the same data, or restore an older backup; it is tried again from time to time.',
    })
  },
})

interface Filled {
  readonly vmid: Vmid
  readonly drive: string
  readonly filling: Filling
  /** What could not be read, as far as it was said. */
  readonly unread: Set<string>
  readonly share: (fraction: number) => number
}

interface Job {
  readonly id: string
  readonly status: string
  readonly error?: string
  readonly 'current-progress': number
  readonly 'total-progress': number
}

/** @returns false when the guest has ended */
async function fill(context: StepContext<FillDisks, FillDeps, unknown>, how: Filled): Promise<boolean> {
  const { deps, log, progress, signal } = context
  const { vmid, drive, share } = how
  for (let hasFailed = false; ;) {
    if (signal.aborted) throw new Fault('aborted', 'interrupted')
    const look = await lookedAt(deps.guests, how, hasFailed)
    await tellUnread(context, how)
    switch (look.is) {
      case 'off':
        return false
      case 'whole':
        await deps.guests.filled(vmid, drive)
        log(`${drive}: all of it is there`)
        return true
      case 'failed':
        hasFailed = true
        if (how.unread.size > 0) return true
        throw new Fault('failed', `${drive}: QEMU: ${look.error}`)
      case 'copying':
        progress(`copy ${drive}`, share(look.fraction))
    }
    await deps.clock.sleep(pollMs, signal)
  }
}

type Look =
  | { readonly is: 'off' | 'whole' }
  | { readonly is: 'failed'; readonly error: string }
  | { readonly is: 'copying'; readonly fraction: number }

/** Starts the copying where it is not under way. Connects anew each time: others may want the monitor, too. */
async function lookedAt(guests: GuestService, how: Filled, hasFailed: boolean): Promise<Look> {
  try {
    await using monitor = await guests.qmp(how.vmid, 'long')
    const job = (await monitor.execute<readonly Job[]>('query-jobs')).find(({ id }) => id === jobOf(how.drive))
    if (job?.status === 'concluded') {
      await monitor.execute('job-dismiss', { id: job.id })
      if (job.error !== undefined) return { is: 'failed', error: job.error }
    } else if (job) {
      return { is: 'copying', fraction: Math.min(1, job['current-progress'] / Math.max(1, job['total-progress'])) }
    }
    if (!(await lacksSomething(monitor, how.drive))) return { is: 'whole' }
    if (!hasFailed) await startCopying(monitor, how)
    return { is: 'copying', fraction: 0 }
  } catch (fault) {
    if (isFault(fault) && !(await guests.isRunning(how.vmid))) return { is: 'off' }
    throw fault
  }
}

async function startCopying(monitor: QmpClient, { drive, filling }: Filled): Promise<void> {
  await monitor.execute('block-stream', {
    'job-id': jobOf(drive),
    device: nodeNameOf(drive),
    'auto-dismiss': false,
    // What cannot be read must not become zeros, and must not keep the rest: it stays where it is, below.
    'on-error': 'ignore',
    speed: filling.bytesPerSecond,
  })
}

async function lacksSomething(monitor: QmpClient, drive: string): Promise<boolean> {
  const nodes = await monitor.execute<readonly { readonly 'node-name': string }[]>('query-named-block-nodes', {
    flat: true,
  })
  return nodes.some((node) => node['node-name'] === servedNodeName(drive))
}

async function tellUnread(
  { deps, warn }: StepContext<FillDisks, FillDeps, unknown>,
  { vmid, unread }: Filled,
): Promise<void> {
  for (const line of await deps.guests.unreadableBelow(vmid)) {
    if (!unread.has(line)) warn(`cannot be read: ${line}`)
    unread.add(line)
  }
}
