/** What a backup job stands for: the guests it covers now, and the request its run makes. */
import { invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import type { BackupJob, JobOptions } from '#cluster/backup-jobs.ts'
import type { Options } from '#guests/config.ts'
import type { GuestSummary } from '#guests/guest.ts'
import { mountsOf } from '#guests/lxc/mountpoint.ts'
import { drivesOf } from '#guests/qemu/drive.ts'
import { type Pools, requirePool } from '#pools/pool.ts'
import { treesToBackUp } from './guest-trees.ts'
import { backupRequest, idsIn, type VzdumpParams } from './request.ts'
import type { BackupGuests } from './run.ts'

/** Of the job itself; the rest is what a backup is asked for with. */
export const ofTheJob: readonly string[] = ['id', 'schedule', 'enabled', 'comment', 'repeat-missed', 'node', 'type']

const listOf = (value: unknown): number[] => (typeof value === 'string' ? idsIn(value) : [])

/** Numbers of the guests the job covers, of those there are. */
export function coveredBy({ options }: BackupJob, guests: readonly number[], pools: Pools): number[] {
  const excluded = listOf(options.exclude)
  const chosen =
    typeof options.pool === 'string'
      ? (pools.get(options.pool)?.vms ?? [])
      : options.all === true
        ? guests
        : listOf(options.vmid)
  return guests.filter((vmid) => chosen.includes(vmid) && !excluded.includes(vmid))
}

/** What a run of the job asks for; nothing when it covers no guest. @throws Fault `invalid` naming what cannot be done */
export function requestOf(job: BackupJob, guests: readonly number[], pools: Pools): BackupGuests | undefined {
  const covered = coveredBy(job, guests, pools)
  return covered.length === 0 ? undefined : backupRequest(paramsOf(job, covered.join(',')))
}

/** @throws Fault `invalid` for a job whose runs would be refused, `missing` for a pool that is not there */
export function requireRunnable(job: BackupJob, pools: Pools): void {
  const { all, vmid, pool, exclude } = job.options
  const errors: Record<string, string> = {}
  if (vmid !== undefined && all === true) errors.all = "option conflicts with option 'vmid'"
  if (vmid !== undefined && exclude !== undefined) errors.exclude = "option conflicts with option 'vmid'"
  if (pool !== undefined && vmid !== undefined) errors.pool = "option conflicts with option 'vmid'"
  if (pool !== undefined && all === true) errors.pool = "option conflicts with option 'all'"
  if (vmid === undefined && all !== true && pool === undefined)
    errors.vmid = 'property is missing and it is not optional'
  if (Object.keys(errors).length > 0) throw invalid(errors)
  if (typeof pool === 'string') requirePool(pools, pool)
  backupRequest(paramsOf(job, '100'))
}

/** The guests are named one by one, so that a guest made while a run lasts waits for the next. */
function paramsOf({ id, options }: BackupJob, vmid: string): VzdumpParams {
  const own = [...ofTheJob, 'all', 'exclude', 'pool', 'vmid']
  const others = Object.entries(options).filter(([name]) => !own.includes(name))
  return { ...Object.fromEntries(others), vmid, 'job-id': id }
}

/** Disks and mount points of each covered guest, and whether a backup holds them. */
export function includedVolumes(guests: readonly GuestSummary[], covered: readonly number[]) {
  return guests
    .filter(({ vmid }) => covered.includes(vmid))
    .map(({ vmid, name, kind, options }) => ({
      id: Number(vmid),
      name,
      type: kind,
      children: kind === 'lxc' ? includedMounts(options) : includedDisks(options),
    }))
}

interface IncludedVolume {
  readonly id: string
  readonly name: string
  readonly included: boolean
  readonly reason: string
}

function includedDisks(options: Options): IncludedVolume[] {
  return drivesOf(options)
    .filter(({ isCdrom }) => !isCdrom)
    .map(({ name: id, file, values }) => {
      const isIncluded = values.backup !== false
      return { id, name: file, included: isIncluded, reason: `backup=${isIncluded ? 'yes' : 'no'}` }
    })
}

function includedMounts(options: Options): IncludedVolume[] {
  const { leftOut } = treesToBackUp(options)
  return mountsOf(options).map(({ name: id, values }) => {
    const why = leftOut.find(({ mount }) => mount === id)?.reason
    return { id, name: String(values.volume), included: why === undefined, reason: why ?? 'backup=yes' }
  })
}

/** The day and time of older clients as a calendar event. @throws Fault `invalid` */
export function scheduleOf(given: JobOptions): string | undefined {
  const { schedule, starttime, dow } = given
  if (typeof schedule === 'string') {
    if (starttime !== undefined) throw invalid({ starttime: "'starttime' and 'schedule' cannot both be set" })
    return schedule
  }
  if (typeof starttime !== 'string') return undefined
  return typeof dow === 'string' ? `${splitList(dow).join(',')} ${starttime}` : starttime
}
