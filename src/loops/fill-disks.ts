/**
 * Sees to guests that run from their backups: that what they lack is served, and that somebody copies it.
 *
 * Takes no input but what is written down with the guests: whoever died, the server, the task, or this daemon, the next
 * round finds out and starts it again.
 */
import type { Vmid } from '#base/ids.ts'
import { fillDisks } from '#operations/backup/fill-disks.ts'
import type { NodeServices } from '#services.ts'
import { keepGoing } from './rounds.ts'

const everyMs = 500
/** What could not be read may be there again after the next backup. */
const againMs = 10 * 60_000

type FillDeps = Pick<NodeServices, 'guests' | 'clock' | 'log' | 'tasks'>

export function keepFilling(deps: FillDeps, signal: AbortSignal): void {
  const { guests, clock, log, tasks } = deps
  const started = new Map<Vmid, { readonly atMs: number; readonly process: number; readonly upid: string }>()
  const isAtWork = (vmid: Vmid) => tasks.active().some(({ type, id }) => type === fillDisks.name && id === String(vmid))
  const round = async () => {
    const fillings = await guests.fillings()
    for (const { vmid, filling } of fillings) {
      const process = await guests.processOf(vmid)
      if (process === undefined) continue
      await guests.serveBelow(vmid)
      const last = started.get(vmid)
      if (isAtWork(vmid)) continue
      const isEarly = last?.process === process && clock.monotonic() - last.atMs < againMs
      if (isEarly && !(await wasKilled(tasks, last.upid))) continue
      const upid = await tasks.start({ operation: fillDisks.name, params: { vmid }, user: filling.by })
      started.set(vmid, { atMs: clock.monotonic(), process, upid })
      log.info('the disks of a guest are filled from its backup', { vmid, upid })
    }
    for (const vmid of started.keys()) if (!fillings.some((one) => one.vmid === vmid)) started.delete(vmid)
  }
  const failed = 'looking after guests that run from their backups failed'
  keepGoing(deps, { everyMs, round, failed, ended: 'nobody fills the disks of guests any more' }, signal)
}

/** Its process ended without a word: it has not said that it cannot go on. */
async function wasKilled(tasks: FillDeps['tasks'], upid: string): Promise<boolean> {
  // What is not known any more is no reason to wait.
  const ended = await tasks.status(upid).catch(() => undefined)
  return !ended || (ended.status === 'stopped' && ended.kind === undefined && ended.exitstatus !== 'OK')
}
