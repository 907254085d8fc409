/**
 * Starts, stops or suspends the guests of a node, all or some, in the order their owners gave them: a node's own calls
 * (`startall`), and those for guests wherever they are (`bulk-start`), which also go on with guests that were halted.
 *
 * Guests start by rising `order` of their `startup` option, with its `up` seconds after each order, and stop by falling
 * order, with `down` seconds at most for each; guests without an order come last and go first. A guest that fails does
 * not keep the others, but the task ends with a warning for it. Nothing is undone: what was started was wanted.
 */
import { Fault, messageOf } from '#base/fault.ts'
import { inTurns } from '#base/in-turns.ts'
import { asVmid } from '#base/ids.ts'
import type { Clock } from '#base/clock.ts'
import type { GuestSummary } from '#guests/guest.ts'
import type { GuestService } from '#guests/service.ts'
import type { Store } from '#store/store.ts'
import { acquireLocks, releaseLocks } from '#tasks/lock.ts'
import { operation } from '#tasks/operation.ts'

export interface AllGuests {
  /** Only these. */
  readonly vms?: readonly number[] | undefined
  /** Start guests that do not start at boot too. */
  readonly force?: boolean | undefined
  /** Seconds a guest may take to start or to shut down. */
  readonly timeout?: number | undefined
  /** Pull the plug of guests that do not shut down. */
  readonly forceStop?: boolean | undefined
  readonly maxWorkers?: number | undefined
}

export interface AllGuestsDeps {
  readonly guests: GuestService
  readonly store: Store
  readonly clock: Clock
}

interface Round {
  readonly guests: readonly GuestSummary[]
  /** Seconds to wait after the round. */
  readonly pause: number
}

const last = Number.MAX_SAFE_INTEGER
const workers = 4
const lockWaitMs = 60_000
const shutdownSeconds = 180

export interface Startup {
  readonly order: number
  readonly up: number
  readonly down: number | undefined
}

export function startupOf(text = ''): Startup {
  const values = new Map(
    text.split(',').map((part): [string, number] => {
      const [name = '', value] = part.split('=')
      return value === undefined ? ['order', Number(name === '' ? last : name)] : [name, Number(value)]
    }),
  )
  return { order: values.get('order') ?? last, up: values.get('up') ?? 0, down: values.get('down') }
}

/** Guests of one order belong together. */
export function roundsOf(guests: readonly GuestSummary[], direction: 'up' | 'down'): Round[] {
  const startups = guests.map((guest) => ({ guest, startup: startupOf(guest.options.startup) }))
  const orders = [...new Set(startups.map(({ startup }) => startup.order))].toSorted((a, b) => a - b)
  const rounds = orders.map((order) => {
    const members = startups.filter(({ startup }) => startup.order === order)
    return {
      guests: members.map(({ guest }) => guest),
      pause: direction === 'up' ? Math.max(...members.map(({ startup }) => startup.up)) : 0,
    }
  })
  return direction === 'up' ? rounds : rounds.toReversed()
}

type Act = (guest: GuestSummary, about: { params: AllGuests; deps: AllGuestsDeps; upid: string }) => Promise<void>

const definition = (
  name: string,
  direction: 'up' | 'down',
  isMeant: (guest: GuestSummary, params: AllGuests) => boolean,
  act: Act,
) =>
  operation<AllGuests, AllGuestsDeps>(name).step('guests', {
    async do({ params, deps, log, warn, progress, signal, task }) {
      const all = (await deps.guests.list()).filter(
        (guest) => (params.vms === undefined || params.vms.includes(guest.vmid)) && isMeant(guest, params),
      )
      if (all.length === 0) log('there is no guest to do this to')
      const one = async (guest: GuestSummary) => {
        if (signal.aborted) throw new Fault('aborted', 'interrupted')
        const lock = `guest/${guest.vmid}`
        try {
          await acquireLocks(deps.store, [lock], task.upid, {
            signal,
            clock: deps.clock,
            timeoutMs: lockWaitMs,
            onWait: ({ upid }) => log(`guest ${guest.vmid} is held by task ${upid}; waiting`),
          })
          await act(guest, { params, deps, upid: task.upid })
          log(`VM ${guest.vmid} (${guest.name}): done`)
        } catch (fault) {
          if (signal.aborted) throw fault
          warn(`VM ${guest.vmid} (${guest.name}): ${messageOf(fault)}`)
        }
      }
      let done = 0
      for (const { guests, pause } of roundsOf(all, direction)) {
        await inTurns(guests, params.maxWorkers ?? workers, async (guest) => {
          await one(guest)
          done += 1
          progress(`VM ${guest.vmid}`, done / all.length)
        })
        // Locks of guests that are done are given back together: one act at a time is all a guest needs.
        await releaseLocks(deps.store, (holder) => holder === task.upid)
        if (pause > 0 && done < all.length) await deps.clock.sleep(pause * 1000, signal)
      }
    },
  })

const runs = ({ state }: GuestSummary) => state.state === 'running'

const isHalted = ({ state }: GuestSummary) => state.state === 'running' && state.qmpStatus === 'paused'

const start: Act = async ({ vmid }, { params: { timeout }, deps, upid }) => {
  await deps.guests.requireUsable(asVmid(vmid))
  const patience = timeout === undefined ? {} : { timeoutMs: timeout * 1000 }
  await deps.guests.start(asVmid(vmid), { startedBy: upid, ...patience })
}
const resume: Act = async ({ vmid }, { deps }) => {
  await deps.guests.requireUsable(asVmid(vmid))
  await deps.guests.resume(asVmid(vmid))
}
const shutDown: Act = async ({ vmid, options }, { params, deps }) => {
  const seconds = startupOf(options.startup).down ?? params.timeout ?? shutdownSeconds
  await deps.guests.shutdown(asVmid(vmid), { timeoutMs: seconds * 1000, forceStop: params.forceStop ?? true })
}
const suspend: Act = ({ vmid }, { deps }) => deps.guests.suspend(asVmid(vmid))

export const startAll = definition(
  'startall',
  'up',
  (guest, { force }) => !runs(guest) && !guest.isTemplate && (force === true || guest.options.onboot === '1'),
  start,
)
export const stopAll = definition('stopall', 'down', runs, shutDown)
export const suspendAll = definition('suspendall', 'down', runs, suspend)

export const bulkStart = definition(
  'bulk-start',
  'up',
  (guest) => isHalted(guest) || (!runs(guest) && !guest.isTemplate),
  (guest, about) => (runs(guest) ? resume : start)(guest, about),
)
export const bulkShutdown = definition('bulk-shutdown', 'down', runs, shutDown)
export const bulkSuspend = definition('bulk-suspend', 'down', (guest) => runs(guest) && !isHalted(guest), suspend)
