/** A guest whose disk is encrypted behind our back: said, and what was there before is kept from its own retention. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { open } from 'node:fs/promises'
import { test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { BackupOptions } from '#cluster/backup-options.ts'
import { webhookListener } from '../fixtures/webhook-listener.ts'
import { type BackupWorld, backupWorld } from './backup-world.ts'

const sizeBytes = 16 * MiB

interface Told {
  readonly outcome: string
  readonly alarms: number
  readonly hints: number
  readonly guests: readonly { readonly hint?: string }[]
}

test('a disk that becomes noise is told of, and the backups from before it outlive their retention', async () => {
  await using world = await backupWorld()
  const { path, backUp } = await guestWithHistory(world)
  await write(path, randomBytes(12 * MiB), 0)
  const log: string[] = []
  await using heard = await webhookListener<Told>()
  await new BackupOptions(world.store).change(() => ({ webhook: { url: heard.url, on: 'failure' } }))
  const newest = await backUp(log)
  // Those hear of it, too, who want to hear of failures alone.
  const [told, ...others] = heard.told
  assert.deepEqual([told?.outcome, told?.hints, told?.alarms, others], ['successful', 1, 0, []])
  assert.match(told?.guests[0]?.hint ?? '', /as if it had been encrypted/)
  assert.match(
    log.join('\n'),
    /much more is new than usual \(\d+ % of the data, usually [\d.]+ %\), and it can hardly be compressed/,
  )
  const listed = await world.backup.list({ storage: 'vault', vmid: 100 })
  assert.match(listed.find(({ volid }) => volid === newest)?.hint ?? '', /as if it had been encrypted/)
  const before = listed.filter(({ volid }) => volid !== newest)
  assert.ok(before.length >= 2 && before.every((one) => one.protected === true), 'two were to be kept, and none goes')
})

test('that is told where few backups are kept, too, as each knows how those before it changed', async () => {
  await using world = await backupWorld()
  const { path, backUp } = await guestWithHistory(world, 'keep-last=2')
  const kept = await world.backup.list({ storage: 'vault', vmid: 100 })
  assert.equal(kept.length, 2)
  const { changes } = kept.at(-1)?.manifest?.facts ?? {}
  assert.ok(Array.isArray(changes))
  assert.deepEqual([changes.length, Object.keys(changes[0])], [5, ['time', 'chunks', 'newChunks', 'newStoredBytes']])
  await write(path, randomBytes(12 * MiB), 0)
  const newest = await backUp()
  const listed = await world.backup.list({ storage: 'vault', vmid: 100 })
  assert.match(listed.find(({ volid }) => volid === newest)?.hint ?? '', /as if it had been encrypted/)
  assert.deepEqual(
    listed.filter((one) => one.protected === true).map(({ volid }) => volid),
    kept.map(({ volid }) => volid),
  )
})

test('as much that is new and like what was there is everyday, and its retention holds', async () => {
  await using world = await backupWorld()
  const { path, backUp } = await guestWithHistory(world)
  await write(path, words(12 * MiB, 'another'), 0)
  const log: string[] = []
  await backUp(log)
  assert.doesNotMatch(log.join('\n'), /more is new than usual/)
  const listed = await world.backup.list({ storage: 'vault', vmid: 100 })
  assert.equal(listed.length, 6)
  assert.ok(listed.every((one) => one.protected !== true && one.hint === undefined))
})

/** Six backups of which the first holds everything, and each other a little that is new. */
async function guestWithHistory(world: BackupWorld, keep = 'keep-last=6') {
  const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes, format: 'raw' })
  const { path } = await world.storage.location(volid)
  await write(path, words(12 * MiB, 'first'), 0)
  await world.define(100, { name: 'web', scsi0: volid })
  const settings = { ...world.settings, fetchNetworks: ['127.0.0.1'] }
  const backUp = async (log: string[] = []) => {
    const [made] = await world.run({ vmids: [100], keep }, log, { settings })
    assert.ok(made)
    return made
  }
  await backUp()
  for (let day = 1; day < 6; day += 1) {
    await write(path, words(256 * KiB, `day ${day}`), day * MiB)
    const log: string[] = []
    await backUp(log)
    assert.doesNotMatch(log.join('\n'), /more is new than usual/)
    // The first one is not among those it is compared with.
    const isTooFew = log.some((line) => line.includes(`are known (now ${day - 1})`))
    assert.equal(isTooFew, day < 4, log.join('\n'))
  }
  return { path, backUp }
}

/** Text no two parts of which are alike. */
function words(length: number, seed: string): Buffer {
  const lines: string[] = []
  for (let bytes = 0, line = 0; bytes < length; line += 1) {
    const text = `${seed}: ${line} of many lines of a log, ${(line * 7919) % 104_729}\n`
    lines.push(text)
    bytes += text.length
  }
  return Buffer.from(lines.join('')).subarray(0, length)
}

async function write(path: string, bytes: Buffer, at: number): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write(bytes, 0, bytes.length, at)
  await file.sync()
}
