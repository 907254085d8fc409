/** `hako datastore restore` over a block device: what is on it goes, so its name is typed first. */
import { humanSize } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { printPoint } from '#datastore/point.ts'
import { requireRoom, restoreOntoDevice } from '#datastore/restore/onto-device.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import type { BlockDevice } from '#host/disks/block-devices.ts'
import { readTableAgain } from '#host/disks/disk-tools.ts'
import { HeldDevice } from '#host/disks/held-device.ts'
import { machine } from '#host/exec.ts'
import type { Parsed } from '../arguments.ts'
import { type Terminal, typed } from '../terminal.ts'
import { say } from '../text.ts'
import { rateOf, shownBytes } from './at-work.ts'

/** @param target as it was given, and is to be typed again */
export async function ontoDevice(
  reader: BackupReader,
  disk: string,
  target: string,
  parsed: Parsed,
  terminal: Terminal,
) {
  const { language, signal } = terminal
  let written: number
  {
    await using device = await HeldDevice.take(machine(), target)
    requireRoom(reader, disk, device)
    await confirm(device.facts, target, parsed, terminal)
    const show = shownBytes(terminal, parsed, disk)
    try {
      written = await restoreOntoDevice(reader, disk, device, {
        signal,
        rateBytesPerSecond: rateOf(parsed.params),
        onProgress: ({ doneBytes, sizeBytes }) => show(doneBytes, sizeBytes),
        onZeroed: shownBytes(terminal, parsed, 'zeros'),
      })
    } catch (fault) {
      terminal.show(say(language, 'halfDevice', target))
      throw fault
    }
  }
  // Only who has nothing open on it may ask for that.
  await readTableAgain(machine(), target)
  return { backup: printPoint(reader.head.point), disk, target, size: reader.disk(disk).sizeBytes, data: written }
}

async function confirm(device: BlockDevice, target: string, { global }: Parsed, { language }: Terminal): Promise<void> {
  if (global.confirm === target) return
  const { sizeBytes, model, fileSystem, partitionTable, children } = device
  const on = [fileSystem ?? partitionTable, ...children.map(({ path, fileSystem: kind }) => `${path} ${kind ?? ''}`)]
  const facts = [humanSize(sizeBytes), model, ...on].flatMap((one) => one?.trim() ?? [])
  const question = say(language, 'confirm', `${target} (${facts.join(', ')})`)
  const answer = await typed(`${question} ${say(language, 'typeName')} `)
  if (answer === target) return
  throw new Fault('invalid', answer === undefined ? question : say(language, 'nothingDone'), {
    remedy: say(language, 'confirmRemedy', target),
  })
}
