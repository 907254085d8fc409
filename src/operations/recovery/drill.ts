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

/**
 * Scratch guests live up there, far from ids people give. The offset is the task's pid, which no other
 * living task has, so an undo knows the id even when the journal heard of nothing.
 */
const scratchIds = 990_000_000

function scratchOf(upid: string): Vmid {
  return asVmid(scratchIds + parseUpid(upid).pid)
}

export const drillGuest = operation<DrillGuest, DrillDeps>('hakodrill', {
  id: ({ vmid, archive }) => vmid ?? /vm\/(\d+)\//.exec(archive ?? '')?.[1] ?? '',
})
  .step('point', {
    async do({ params, deps, task, log }) {
      const archive =
        params.archive === undefined
          ? await newestPoint(deps, params.backupStorage, params.vmid)
          : await knownPoint(deps, params.archive)
      const guest = /backup\/((?:vm|ct)\/\d+)\//.exec(archive)?.[1]
      if (guest === undefined) throw new Fault('invalid', `'${archive}' is no restore point that can be drilled`)
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
    do: ({ deps, task }) => deps.guests.reserve(scratchOf(task.upid), task.upid),
    always: true,
    async undo({ deps, task, log }) {
      const scratch = scratchOf(task.upid)
      // Somebody else's guest of that id, or nothing at all, is not this drill's to remove.
      if (!(await deps.guests.isMadeBy(scratch, task.upid))) return
      if (await deps.guests.isRunning(scratch)) await deps.guests.stop(scratch)
      await deps.storage.freeOwnedBy(scratch)
      await deps.guests.release(scratch, task.upid)
      log(`scratch guest ${scratch} removed, with its disks`)
    },
  })
  .step('network', {
    do: async ({ deps, done }) => ({ ...(await deps.network.createIsolated(done.point.network)) }),
    always: true,
    async undo({ deps, done, log }) {
      if (!done.point) return
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
      const directory = await deps.recovery.keep(record, await gatherExhibits(deps, done.point.scratch, done.climb))
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
  const points = await deps.backup.list({ storage, vmid: asVmid(vmid) })
  const newest = points.toSorted((a, b) => b.ctime - a.ctime)[0]
  if (!newest)
    throw missing('restore point of guest', vmid, {
      remedy: `Make one with: hako backup now ${vmid} --storage ${storage}`,
    })
  return asVolumeId(newest.volid)
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
