/**
 * A drill: a restore point is restored under a scratch id, booted on a network with no way out, climbed
 * up the ladder, and everything it made is removed again. Removing is part of success, so the undos of
 * `scratch` and `network` run either way.
 *
 * What the climb finds is evidence even when it is bad news: the record is kept first, and only then
 * does the last step turn a missed level into the failure of the task.
 */
import { Fault, missing } from '#base/fault.ts'
import { asVmid, asVolumeId, splitVolumeId, type Vmid } from '#base/ids.ts'
import { suffices } from '#recovery/level.ts'
import { type DrillRecord, quoteOf, recoveryTimeMs } from '#recovery/record.ts'
import { operation } from '#tasks/operation.ts'
import { parseUpid } from '#tasks/upid.ts'
import { climbLadder } from './drill-climb.ts'
import type { DrillDeps, DrillGuest, DrillOutcome, DrillPoint } from './drill-facts.ts'
import { gatherExhibits } from './exhibits.ts'
import { drilledOf } from './kinds.ts'

/**
 * Scratch guests live up there, far from ids people give. The offset is the task's pid, which no other
 * living task has, so an undo knows the id even when the journal heard of nothing.
 */
const scratchIds = 990_000_000

function scratchOf(upid: string): Vmid {
  return asVmid(scratchIds + parseUpid(upid).pid)
}

export const drillGuest = operation<DrillGuest, DrillDeps>('hakodrill', {
  id: ({ vmid, archive }) => vmid ?? /(?:vm|ct)\/(\d+)\//.exec(archive ?? '')?.[1] ?? '',
})
  .step('point', {
    async do({ params, deps, task, log }) {
      const archive =
        params.archive === undefined
          ? await newestPoint(deps, params.backupStorage, params.vmid)
          : await knownPoint(deps, params.archive)
      const guest = guestIn(archive)
      const scratch = scratchOf(task.upid)
      log(`restore point ${archive}, scratch guest ${scratch}`)
      return {
        archive,
        guest,
        scratch,
        network: `d${scratch - scratchIds}`,
        started: new Date(deps.clock.now()).toISOString(),
      }
    },
  })
  .step('scratch', {
    do: ({ deps, task, done }) =>
      deps.guests.reserve(scratchOf(task.upid), task.upid, drilledOf(done.point.guest).kind),
    always: true,
    async undo({ deps, task, done, log }) {
      const scratch = scratchOf(task.upid)
      // Somebody else's guest of that id, or nothing at all, is not this drill's to remove.
      if (!(await deps.guests.isMadeBy(scratch, task.upid))) return
      await switchOff(deps, scratch)
      await deps.storage.freeOwnedBy(scratch)
      await deps.guests.release(scratch, task.upid)
      log(`scratch guest ${scratch} removed, with its ${done.point ? drilledOf(done.point.guest).volumes : 'volumes'}`)
    },
  })
  .step('network', {
    do: async ({ deps, done }) => ({ ...(await deps.network.createIsolated(done.point.network)) }),
    always: true,
    async undo({ deps, done, task, log }) {
      if (!done.point) return
      // What leads a container is in its network, and must put away what it made before that goes.
      const scratch = scratchOf(task.upid)
      if (await deps.guests.isMadeBy(scratch, task.upid)) await switchOff(deps, scratch)
      await deps.network.removeIsolated(done.point.network)
      log('isolated network removed')
    },
  })
  .step('climb', {
    do: (context) => climbLadder(context),
  })
  .step('evidence', {
    async do({ params, deps, done, task, log }) {
      const record = recordOf({
        params,
        point: done.point,
        outcome: done.climb,
        task,
        node: deps.settings.node,
        now: deps.clock.now(),
      })
      const drilled = drilledOf(done.point.guest)
      const exhibits = await gatherExhibits(deps, drilled, done.point.scratch, done.climb)
      const directory = await deps.recovery.keep(record, exhibits)
      log(record.quote)
      log(`evidence: ${directory}`)
      return { id: record.id, quote: record.quote, proven: record.proven }
    },
    // What is whole stays: that the drill was interrupted afterwards makes it no less true.
    undo: ({ deps, done }) => (done.point ? deps.recovery.discardUnfinished(recordIdOf(done.point)) : undefined),
  })
  .step('verdict', {
    do({ done }) {
      if (!done.evidence.proven) throw new Fault('unproven', done.evidence.quote)
    },
  })

/** Nothing of it runs or is mounted afterwards. May be called again. */
async function switchOff({ guests }: DrillDeps, scratch: Vmid): Promise<void> {
  if (await guests.isRunning(scratch)) await guests.stop(scratch)
  await guests.reap(scratch)
  // Of one that was never started: a restore may have died while it wrote.
  await guests.closeVolumes(scratch)
}

/** A restore point that does not exist proves nothing about the guest. @throws Fault `missing` */
async function knownPoint(deps: DrillDeps, archive: string): Promise<string> {
  const volid = asVolumeId(archive)
  const { storage } = splitVolumeId(volid)
  const points = await deps.backup.list({ storage })
  if (!points.some((point) => point.volid === volid)) {
    throw missing('restore point', archive, { remedy: `Those there are: hako backup list --storage ${storage}` })
  }
  return archive
}

async function newestPoint(deps: DrillDeps, storage: string, vmid: number | undefined): Promise<string> {
  if (vmid === undefined)
    throw new Fault('invalid', 'Parameter verification failed.', {
      fields: { vmid: 'name a guest or a restore point (archive)' },
    })
  const points = await pointsOf(deps, storage, asVmid(vmid))
  const newest = points.toSorted((a, b) => b.ctime - a.ctime)[0]
  if (!newest)
    throw missing('restore point of guest', vmid, {
      remedy: `Make one with: hako backup now ${vmid} --storage ${storage}`,
    })
  return asVolumeId(newest.volid)
}

/** `ct/101`, of the volume id of a restore point. */
function guestIn(archive: string): string {
  const guest = /backup\/((?:vm|ct)\/\d+)\//.exec(archive)?.[1]
  if (guest === undefined) throw new Fault('invalid', `'${archive}' is no restore point that can be drilled`)
  return guest
}

/** An id may have been another guest's before: what was backed up of a virtual machine proves nothing of a container. */
async function pointsOf({ backup, guests }: DrillDeps, storage: string, vmid: Vmid) {
  const points = await backup.list({ storage, vmid })
  if (!(await guests.exists(vmid))) return points
  const { kind } = await guests.status(vmid)
  return points.filter(({ volid }) => drilledOf(guestIn(volid)).kind === kind)
}

interface RecordFacts {
  readonly params: DrillGuest
  readonly point: DrillPoint
  readonly outcome: DrillOutcome
  readonly task: { readonly upid: string; readonly startTime: number }
  readonly node: string
  /** Milliseconds since 1970. */
  readonly now: number
}

function recordIdOf({ started, guest, scratch }: DrillPoint): string {
  return `${started.replace(/[-:]|\.\d+/g, '')}-${guest.replace('/', '-')}-${scratch}`
}

export function recordOf({ params, point, outcome, task, node, now }: RecordFacts): DrillRecord {
  const { reached, verdicts, phases, pointInTime, name } = outcome
  const proven = suffices(reached ?? undefined, params.wanted)
  const record = {
    id: recordIdOf(point),
    node,
    upid: task.upid,
    guest: point.guest,
    kind: drilledOf(point.guest).kind,
    ...(name === null ? {} : { name }),
    archive: point.archive,
    ...(pointInTime === null ? {} : { pointInTime, dataAgeMs: Date.parse(point.started) - Date.parse(pointInTime) }),
    started: point.started,
    ended: new Date(now).toISOString(),
    wanted: params.wanted,
    ...(reached === null ? {} : { reached }),
    proven,
    verdicts,
    phases,
    probes: params.probes,
    ...(proven && suffices(params.wanted, 'L2') ? { recoveryTimeMs: recoveryTimeMs(phases) } : {}),
  }
  return { ...record, quote: quoteOf(record) }
}
