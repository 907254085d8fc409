/**
 * Backs up one guest, from its lock to the commit. Whatever happens the guest is left as it was found:
 * running where it ran, without filters, exports and fleecing images.
 */
import { formatSize, humanSize, MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import type { BackupWriter } from '#backup/writer.ts'
import { nameOf } from '#guests/config.ts'
import type { Services } from '#services.ts'
import { namingFullStorage, type Writing } from '#storage/full.ts'
import type { Json } from '#store/store.ts'
import { guestConfName, printGuestConf } from './guest-conf.ts'
import { disksToBackUp, type GuestDisk } from './guest-disks.ts'
import { type GuestMoment, type MomentOptions, runningMoment, stoppedMoment } from './guest-source.ts'
import { notesFrom } from './notes-template.ts'

export type BackupMode = 'snapshot' | 'suspend' | 'stop'
/** What others may want to hear of in mode `stop`. */
export type StopPhase = 'pre-stop' | 'pre-restart' | 'post-restart'

/** How guests are backed up; the same for all guests of a task. */
export type BackupHow = {
  readonly storage: string
  readonly mode: BackupMode
  readonly notesTemplate?: string | undefined
  readonly protected?: boolean | undefined
  /** KiB per second; 0 for no limit. */
  readonly bwlimit?: number | undefined
  readonly fleecingStorage?: string | undefined
  /** Reads under way at once, for each disk in turn. */
  readonly readsAhead?: number | undefined
  /** Minutes a guest may take to shut down, for mode `stop`. */
  readonly stopWait?: number | undefined
}

export type BackupDeps = Pick<Services, 'settings' | 'clock' | 'host' | 'guests' | 'storage' | 'backup' | 'store'>

export interface OneGuestContext {
  readonly deps: BackupDeps
  readonly how: BackupHow
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
  readonly progress: (phase: string, fraction?: number) => void
  readonly signal: AbortSignal
  readonly onPhase?: ((phase: StopPhase) => Promise<void>) | undefined
}

/** Returns the volume id of the backup. The caller holds the guest's lock. */
export async function backUpGuest(vmid: number, context: OneGuestContext): Promise<string> {
  const { deps, how, signal } = context
  const lines: string[] = []
  const log = (line: string) => {
    lines.push(line)
    context.log(line)
  }
  const guest = asVmid(vmid)
  await deps.guests.requireUnlocked(guest)
  const wasRunning = await deps.guests.isRunning(guest)
  log(`status = ${wasRunning ? 'running' : 'stopped'}`)
  log(`VM Name: ${nameOf((await deps.guests.config(guest)).options, vmid)}`)
  const writing = writingOf(guest, context)
  log(`backup mode: ${wasRunning ? how.mode : 'stop'}`)
  const begun = await namingFullStorage(writing, () => deps.backup.begin(how.storage, { vmid: guest }))
  await using writer = begun.writer
  log(`creating backup '${begun.volid}'`)
  try {
    await using moment = await momentOf(guest, { ...context, log }, wasRunning)
    const neededBytes = await sizeOf(moment.disks, deps)
    await namingFullStorage({ ...writing, neededBytes, isUpperBound: true }, async () => {
      await readDisks(writer, moment, { ...context, log })
      await finish(writer, moment, { guest, wasRunning, lines, context: { ...context, log } })
    })
  } catch (cause) {
    if (signal.aborted || !wasRunning || !isFault(cause, 'unavailable')) throw cause
    if (await deps.guests.isRunning(guest)) throw cause
    throw new Fault('conflict', `VM ${vmid} ended while it was backed up`, { cause })
  }
  log(`backup ${begun.volid} is complete`)
  return begun.volid
}

function writingOf(guest: Vmid, { deps, how }: OneGuestContext): Writing {
  const availableBytes = async () => (await deps.storage.status(how.storage)).availableBytes
  return { storage: how.storage, what: `the backup of VM ${guest}`, availableBytes }
}

async function sizeOf(disks: readonly GuestDisk[], { storage }: BackupDeps): Promise<number> {
  const sizes = await Promise.all(disks.map(async ({ volid }) => (await storage.describe(volid)).sizeBytes))
  return sizes.reduce((sum, size) => sum + size, 0)
}

interface Moment extends GuestMoment {
  readonly disks: readonly GuestDisk[]
  /** Put into the manifest for people and drills. */
  readonly facts: { readonly [key: string]: Json }
}

async function momentOf(guest: Vmid, context: OneGuestContext, wasRunning: boolean): Promise<Moment> {
  const { deps, how, log, warn, signal } = context
  const config = await deps.guests.config(guest)
  const options = config.running ?? config.options
  const { included, leftOut } = disksToBackUp(options)
  for (const { drive, volid } of included) {
    const { sizeBytes } = await deps.storage.describe(volid)
    log(`include disk '${drive}' '${volid}' ${formatSize(sizeBytes)}`)
  }
  for (const { drive, reason, isSurprising } of leftOut)
    (isSurprising ? warn : log)(`exclude disk '${drive}' (${reason})`)
  if (included.length === 0) warn(`VM ${guest} has no disk to back up; the backup holds its configuration only`)
  const request: MomentOptions = { vmid: guest, disks: included, options, fleecingStorage: how.fleecingStorage, signal }
  const moment = await takeMoment(context, request, wasRunning)
  describe(moment, log, warn, wasRunning && how.mode !== 'stop')
  const facts = {
    mode: how.mode,
    wasRunning,
    node: deps.settings.node,
    freeze: { ...moment.freeze },
    heldMs: moment.heldMs,
    leftOut: leftOut.map(({ drive, reason }) => ({ drive, reason })),
  }
  return { ...moment, disks: included, facts, [Symbol.asyncDispose]: () => moment[Symbol.asyncDispose]() }
}

async function takeMoment(
  { deps, how, log, onPhase = async () => {} }: OneGuestContext,
  request: MomentOptions,
  wasRunning: boolean,
): Promise<GuestMoment> {
  const { guests } = deps
  const { vmid, signal } = request
  if (!wasRunning) return stoppedMoment(deps, request)
  switch (how.mode) {
    case 'snapshot':
      return runningMoment(deps, request)
    case 'suspend':
      return runningMoment(deps, { ...request, holds: true })
    case 'stop': {
      const timeoutMs = (how.stopWait ?? 10) * 60_000
      await onPhase('pre-stop')
      log('stopping the guest')
      await guests.shutdown(vmid, { timeoutMs, signal, log })
      log('the guest is shut down')
      const moment = stoppedMoment(deps, request)
      return {
        ...moment,
        async [Symbol.asyncDispose]() {
          // Whatever the script says, a guest that ran shall run again.
          const before = await settled(onPhase('pre-restart'))
          await guests.start(vmid, { log })
          log('the guest is started again')
          if (before.status === 'rejected') throw before.reason
          await onPhase('post-restart')
        },
      }
    }
    default:
      return how.mode satisfies never
  }
}

async function settled(work: Promise<void>): Promise<PromiseSettledResult<void>> {
  const [result] = await Promise.allSettled([work])
  return result
}

function describe(
  { freeze, heldMs }: GuestMoment,
  log: (line: string) => void,
  warn: (line: string) => void,
  isRunning: boolean,
): void {
  if (freeze.state === 'frozen') {
    log(`${freeze.fileSystems} file systems were frozen for ${freeze.durationMs} ms`)
  } else if (isRunning) {
    // With an agent that ought to answer it is worth a warning; without one the owner knows.
    const say = freeze.reason === 'the guest agent is not enabled for this' ? log : warn
    say(`file systems were not frozen (${freeze.reason}): the backup is as after a power cut`)
  }
  if (heldMs > 0) log(`the processors were held for ${heldMs} ms, so that all disks are of one moment`)
}

async function readDisks(writer: BackupWriter, moment: Moment, context: OneGuestContext): Promise<void> {
  const { deps, how, log, progress, signal } = context
  const rateBytesPerSecond = how.bwlimit ? how.bwlimit * 1024 : undefined
  for (const [number, { drive }] of moment.disks.entries()) {
    await using source = await moment.open(drive)
    const startedMs = deps.clock.monotonic()
    const disk = await writer.addDisk(drive, source, {
      signal,
      rateBytesPerSecond,
      readsAhead: how.readsAhead,
      onProgress: ({ doneBytes, sizeBytes }) => {
        const fraction = (number + doneBytes / Math.max(1, sizeBytes)) / moment.disks.length
        progress(`read ${drive}`, fraction)
      },
    })
    const tookSeconds = Math.max(0.001, (deps.clock.monotonic() - startedMs) / 1000)
    const rate = (disk.dataBytes / MiB / tookSeconds).toFixed(0)
    log(
      `${drive}: ${humanSize(disk.sizeBytes)}, ${humanSize(disk.dataBytes)} of data, ` +
        `${humanSize(disk.newStoredBytes)} stored anew, ${tookSeconds.toFixed(1)} s (${rate} MiB/s)`,
    )
  }
}

async function finish(
  writer: BackupWriter,
  moment: Moment,
  about: { guest: Vmid; wasRunning: boolean; lines: readonly string[]; context: OneGuestContext },
): Promise<void> {
  const { guest, lines, context } = about
  const { deps, how } = context
  // What is wanted, not what runs: a restore is a fresh start.
  const { options } = await deps.guests.config(guest)
  await writer.addFile(guestConfName, printGuestConf(options))
  await writer.addFile('backup.log', `${lines.join('\n')}\n`)
  const facts = { vmid: String(guest), guestname: nameOf(options, guest), node: deps.settings.node, cluster: '' }
  const notes = how.notesTemplate === undefined ? undefined : notesFrom(how.notesTemplate, facts)
  if (notes !== undefined) context.log('adding notes to backup')
  if (how.protected === true) context.log('marking backup as protected')
  await writer.commit(
    { ...moment.facts, name: facts.guestname },
    { pointInTimeMs: moment.takenMs, marks: { notes, protected: how.protected } },
  )
}
