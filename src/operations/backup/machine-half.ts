/** Backups of virtual machines: their disks, as blocks. */
import { formatSize, humanSize, MiB, rateOfLimit } from '#base/bytes.ts'
import type { BackupWriter } from '#datastore/backup/writer.ts'
import type { ManifestDisk } from '#datastore/points/manifest.ts'
import { printPoint } from '#datastore/point.ts'
import { isTemplate, nameOf } from '#guests/config.ts'
import { disksToBackUp, type GuestDisk, type LeftOutDisk } from './guest-disks.ts'
import { guestConfNames } from './guest-conf.ts'
import { type GuestMoment, leaveGuest, type MomentOptions, runningMoment, stoppedMoment } from './guest-source.ts'
import type { BackupInMaking, DiskRecord } from './change-records.ts'
import type { BackupDeps, BackupHalf, BackupMode, GuestContext, GuestToBackUp, ReadableGuest } from './half.ts'
import { whileDown } from './while-down.ts'

export const machineHalf: BackupHalf = {
  kind: 'qemu',
  type: 'vm',
  confName: guestConfNames.vm,
  nameOf,
  modeFor: async ({ wasRunning, context }) => (wasRunning ? context.how.mode : 'stop'),
  open,
  leave: leaveGuest,
}

async function open(guest: GuestToBackUp, mode: BackupMode, backup?: BackupInMaking): Promise<ReadableGuest> {
  const { vmid, config, wasRunning, context } = guest
  const { deps, how, log, warn, signal } = context
  const options = config.running ?? config.options
  const { included: disks, leftOut } = disksToBackUp(options)
  for (const { drive, volid } of disks) {
    const { sizeBytes } = await deps.storage.describe(volid)
    log(`include disk '${drive}' '${volid}' ${formatSize(sizeBytes)}`)
  }
  for (const { drive, reason, isSurprising } of leftOut)
    (isSurprising ? warn : log)(`exclude disk '${drive}' (${reason})`)
  if (disks.length === 0) warn(`VM ${vmid} has no disk to back up; the backup holds its configuration only`)
  // What a template's disks hold is not touched.
  const records = isTemplate(config.options) ? undefined : backup
  const request: MomentOptions = { vmid, disks, options, fleecingStorage: how.fleecingStorage, backup: records, signal }
  const readable = async (moment: GuestMoment): Promise<ReadableGuest> => ({
    neededBytes: await sizeOf(disks, deps),
    async read(writer) {
      await readDisks(writer, moment, disks, guest)
      return { takenMs: moment.takenMs, facts: factsOf(guest, moment, leftOut) }
    },
    onCommitted: moment.keepRecords,
    [Symbol.asyncDispose]: () => moment[Symbol.asyncDispose](),
  })
  const stopped = async () => readable(say(stoppedMoment(deps, request, { begins: wasRunning }), guest, false))
  if (!wasRunning) return stopped()
  if (mode === 'stop') return whileDown(guest, stopped)
  return readable(say(await runningMoment(deps, { ...request, holds: mode === 'suspend' }), guest, true))
}

async function sizeOf(disks: readonly GuestDisk[], { storage }: BackupDeps): Promise<number> {
  const sizes = await Promise.all(disks.map(async ({ volid }) => (await storage.describe(volid)).sizeBytes))
  return sizes.reduce((sum, size) => sum + size, 0)
}

function factsOf({ wasRunning, context }: GuestToBackUp, moment: GuestMoment, leftOut: readonly LeftOutDisk[]) {
  const { deps, how } = context
  return {
    mode: how.mode,
    wasRunning,
    node: deps.settings.node,
    freeze: { ...moment.freeze },
    heldMs: moment.heldMs,
    leftOut: leftOut.map(({ drive, reason }) => ({ drive, reason })),
  }
}

function say(moment: GuestMoment, { context: { log, warn } }: GuestToBackUp, isRunning: boolean): GuestMoment {
  const { freeze, heldMs } = moment
  if (freeze.state === 'frozen') {
    log(`${freeze.fileSystems} file systems were frozen for ${freeze.durationMs} ms`)
  } else if (isRunning) {
    // With an agent that ought to answer it is worth a warning; without one the owner knows.
    const tell = freeze.reason === 'the guest agent is not enabled for this' ? log : warn
    tell(`file systems were not frozen (${freeze.reason}): the backup is as after a power cut`)
  }
  if (heldMs > 0) log(`the processors were held for ${heldMs} ms, so that all disks are of one moment`)
  return moment
}

async function readDisks(
  writer: BackupWriter,
  moment: GuestMoment,
  disks: readonly GuestDisk[],
  { context }: GuestToBackUp,
): Promise<void> {
  const { deps, how, log, progress, signal } = context
  const rateBytesPerSecond = rateOfLimit(how.bwlimit)
  for (const [number, { drive }] of disks.entries()) {
    await using source = await moment.open(drive)
    const record = moment.recordOf(drive)
    sayRecord(drive, record, source.sizeBytes, log)
    const startedMs = deps.clock.monotonic()
    const disk = await writer.addDisk(drive, source, {
      signal,
      rateBytesPerSecond,
      readsAhead: how.readsAhead,
      since: record.since,
      record: record.record,
      onProgress: ({ doneBytes, sizeBytes }) => {
        const fraction = (number + doneBytes / Math.max(1, sizeBytes)) / disks.length
        progress(`read ${drive}`, fraction, doneBytes)
      },
    })
    sayReading(drive, disk, context)
    const tookSeconds = Math.max(0.001, (deps.clock.monotonic() - startedMs) / 1000)
    const rate = (disk.dataBytes / MiB / tookSeconds).toFixed(0)
    log(
      `${drive}: ${humanSize(disk.sizeBytes)}, ${humanSize(disk.dataBytes)} of data, ` +
        `${humanSize(disk.newStoredBytes)} stored anew, ${tookSeconds.toFixed(1)} s (${rate} MiB/s)`,
    )
  }
}

function sayRecord(drive: string, record: DiskRecord, sizeBytes: number, log: (line: string) => void): void {
  const { since, changedBytes, reason } = record
  if (since) {
    const share = changedBytes === undefined ? '' : `: ${humanSize(changedBytes)} of ${humanSize(sizeBytes)} are dirty`
    log(`${drive}: dirty bitmap is OK, since backup ${printPoint(since.point)}${share}`)
  } else if (reason !== undefined) log(`${drive}: dirty bitmap cannot be used (${reason}): the whole disk is read`)
  else if (record.record !== undefined) log(`${drive}: dirty bitmap is new: the whole disk is read`)
}

/** Where a bitmap was good, and the datastore or the content was not. */
function sayReading(drive: string, { reading }: ManifestDisk, { log, alarm }: GuestContext): void {
  if (reading?.how === 'changes') {
    log(`${drive}: read what changed, and ${reading.auditedChunks ?? 0} unchanged chunks to audit the dirty bitmap`)
  }
  if (reading?.reason === undefined) return
  if (!reading.hits) return log(`${drive}: the whole disk was read (${reading.reason})`)
  alarm(
    `${drive}: ${reading.reason}. The whole disk was read, so this backup is good; earlier ones that were made ` +
      'by dirty bitmap may lack changes. Compare one of them, and look for what writes to the disk past QEMU.',
  )
}
