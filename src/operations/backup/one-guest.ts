/**
 * Backs up one guest, from its lock to the commit. Whatever happens the guest is left as it was found:
 * running where it ran, with nothing in it that a backup puts there.
 */
import { figuresOf } from '#backup/change-hint.ts'
import { carriedOn, type DatedFigures } from '#backup/earlier-changes.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { asVmid, type Vmid, type VolumeId } from '#base/ids.ts'
import type { BackupWriter } from '#datastore/backup/writer.ts'
import { defaultChunkBytes } from '#datastore/format.ts'
import type { ManifestBody } from '#datastore/points/manifest.ts'
import { nounOf } from '#guests/kind.ts'
import { namingFullStorage, type Writing } from '#storage/full.ts'
import { type BackupChange, changesBefore } from './change-report.ts'
import { printGuestConf } from './guest-conf.ts'
import type { BackupHalf, GuestContext, GuestToBackUp, WhatWasRead } from './half.ts'
import { halfFor } from './halves.ts'
import { notesFrom } from './notes-template.ts'

export interface BackedUp {
  readonly volid: VolumeId
  readonly change: BackupChange
}

/** The caller holds the guest's lock. */
export async function backUpGuest(vmid: number, given: GuestContext): Promise<BackedUp> {
  const { deps, how, signal } = given
  const lines: string[] = []
  const log = (line: string) => {
    lines.push(line)
    given.log(line)
  }
  const context = { ...given, log }
  const guest = asVmid(vmid)
  await deps.guests.requireUnlocked(guest)
  const half = halfFor(await deps.guests.kindOf(guest))
  const noun = nounOf[half.kind]
  const wasRunning = await deps.guests.isRunning(guest)
  log(`status = ${wasRunning ? 'running' : 'stopped'}`)
  const config = await deps.guests.config(guest, half.kind)
  log(`${noun} Name: ${half.nameOf(config.options, guest)}`)
  const about: GuestToBackUp = { vmid: guest, config, wasRunning, context }
  const mode = await half.modeFor(about)
  log(`backup mode: ${mode}`)
  const writing = writingOf(`${noun} ${vmid}`, context)
  const begun = await namingFullStorage(writing, () => deps.backup.begin(how.storage, { vmid: guest, type: half.type }))
  await using writer = begun.writer
  log(`creating backup '${begun.volid}'`)
  let change: BackupChange
  try {
    // Before the guest is held: it need not wait for a list.
    const before = await changesBefore({ ...context, backup: deps.backup }, { ...how, vmid: guest, type: half.type })
    await using readable = await half.open(about, mode, writer)
    const { neededBytes } = readable
    const body = await namingFullStorage({ ...writing, neededBytes, isUpperBound: true }, async () => {
      const read = await readable.read(writer)
      const committed = await finish(writer, read, { guest, half, lines, context, before })
      await readable.onCommitted?.().catch(onlyWarned(context))
      return committed
    })
    change = { before, now: figuresOf(body, defaultChunkBytes) }
  } catch (cause) {
    if (signal.aborted || !wasRunning || !isFault(cause, 'unavailable')) throw cause
    if (await deps.guests.isRunning(guest)) throw cause
    throw new Fault('conflict', `${noun} ${vmid} ended while it was backed up`, { cause })
  }
  log(`backup ${begun.volid} is complete`)
  return { volid: begun.volid, change }
}

function writingOf(guest: string, { deps, how }: GuestContext): Writing {
  const availableBytes = async () => (await deps.storage.status(how.storage)).availableBytes
  return { storage: how.storage, what: `the backup of ${guest}`, availableBytes }
}

/** The backup is there, whatever comes after. */
function onlyWarned({ warn }: GuestContext): (cause: unknown) => void {
  return (cause) => warn(`what follows a backup failed: ${messageOf(cause)}`)
}

async function finish(
  writer: BackupWriter,
  { takenMs, facts: read }: WhatWasRead,
  about: {
    guest: Vmid
    half: BackupHalf
    lines: readonly string[]
    context: GuestContext
    before: readonly DatedFigures[] | undefined
  },
): Promise<ManifestBody> {
  const { guest, half, lines, context, before = [] } = about
  const { deps, how } = context
  // What is wanted, not what runs: a restore is a fresh start.
  const { options } = await deps.guests.config(guest, half.kind)
  await writer.addFile(half.confName, printGuestConf(options))
  await writer.addFile('backup.log', `${lines.join('\n')}\n`)
  const guestname = half.nameOf(options, guest)
  const facts = { vmid: String(guest), guestname, node: deps.settings.node, cluster: '' }
  const notes = how.notesTemplate === undefined ? undefined : notesFrom(how.notesTemplate, facts)
  if (notes !== undefined) context.log('adding notes to backup')
  if (how.protected === true) context.log('marking backup as protected')
  return writer.commit({
    facts: { ...read, name: guestname, changes: carriedOn(before).map((one) => ({ ...one })) },
    pointInTimeMs: takenMs,
    marks: { notes, protected: how.protected },
  })
}
