/** What we have no right to read is told as that: nothing is found, or marked, damaged for it. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { filesBelow } from '../../../test/fixtures/datastore.ts'
import { backUp, point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import type { OpenDatastore } from '../datastore.ts'
import { repairIndex } from '../tidy/repair.ts'
import { packName } from '../packs/pack.ts'
import { printPoint } from '../point.ts'
import { manifestName } from '../points/manifest.ts'
import { backupsHit } from './hits.ts'
import { verifyDatastore } from './verify-datastore.ts'
import { verifyEverything } from './verify-everything.ts'
import { verifyBackup, verifyPacks } from './verify.ts'

const nobody = 65534
const chunk = 128 * KiB
const isDenied = (fault: unknown) => isFault(fault, 'denied') && /no permission on '/.test(fault.message)

/** As somebody who owns the datastore, with one file in it that root alone can read. */
async function without(path: string, name: string, act: () => Promise<void>): Promise<void> {
  execFileSync('chown', ['-R', String(nobody), path])
  execFileSync('chown', ['root', join(path, name)])
  await chmod(join(path, name), 0o600)
  process.seteuid?.(nobody)
  try {
    await act()
  } finally {
    process.seteuid?.(0)
  }
}

async function verdictsOf(open: OpenDatastore): Promise<Record<string, string>> {
  const verdicts: Record<string, string> = {}
  for await (const { point: name, found, damage, unread } of verifyEverything(open)) {
    const verdict = found ? 'whole' : damage === undefined ? `unread: ${unread}` : `damaged: ${damage}`
    verdicts[name ? printPoint(name) : 'all'] = verdict
  }
  return verdicts
}

async function marksIn(path: string): Promise<string[]> {
  const marks = (await filesBelow(path)).filter((name) => name.startsWith('marks/') || name.startsWith('suspects/'))
  const damaged: string[] = []
  for (const name of marks) {
    const isMark = name.startsWith('suspects/') || (await readFile(join(path, name), 'utf8')).includes('"damage"')
    if (isMark) damaged.push(name)
  }
  return damaged
}

const [first, second] = [printPoint(point(0)), printPoint(point(1))]

suite('what a datastore refuses to who looks at it', () => {
  test('is a manifest: its backup is not read, the other is whole', async () => {
    await using temporary = await temporaryDatastore()
    const made = await temporary.reopen()
    for (const time of [0, 1]) await backUp(made, point(time), { scsi0: randomBytes(3 * chunk) })
    await without(temporary.path, manifestName(point(0)), async () => {
      const open = await temporary.reopen()
      const verdicts = await verdictsOf(open)
      assert.match(verdicts[first] ?? '', /^unread: no permission on '.*\/backups\//)
      assert.deepEqual([verdicts[second], Object.keys(verdicts).length], ['whole', 2])
      await assert.rejects(verifyBackup(open, point(0)), isDenied)
      await assert.rejects(verifyDatastore(open), isDenied)
      await assert.rejects(backupsHit(open, new Set()), isDenied)
    })
    assert.deepEqual(await marksIn(temporary.path), [])
  })

  test('is a pack: backups that need it are not read, what is damaged is told all the same', async () => {
    await using temporary = await temporaryDatastore()
    const made = await temporary.reopen()
    const packs: string[] = []
    for (const time of [0, 1]) {
      const before = new Set(await filesBelow(temporary.path))
      await backUp(made, point(time), { scsi0: randomBytes(3 * chunk) })
      const sizes = await Promise.all(
        (await filesBelow(temporary.path))
          .filter((name) => name.startsWith('packs/') && !before.has(name))
          .map(async (name) => ({ name, size: (await readFile(join(temporary.path, name))).length })),
      )
      packs.push(sizes.toSorted((a, b) => b.size - a.size)[0]?.name ?? '')
    }
    // What the second shares with the first lies in what is spoiled.
    const [spoiled = '', refused = ''] = packs
    const bytes = await readFile(join(temporary.path, spoiled))
    bytes[10_000] = (bytes[10_000] ?? 0) ^ 1
    await writeFile(join(temporary.path, spoiled), bytes)
    await without(temporary.path, refused, async () => {
      const open = await temporary.reopen()
      const verdicts = await verdictsOf(open)
      assert.match(verdicts[first] ?? '', /^damaged: /)
      assert.match(verdicts[second] ?? '', /^unread: no permission on '.*\/packs\//)
      await assert.rejects(verifyPacks(open.datastore), isDenied)
    })
    assert.deepEqual(
      (await marksIn(temporary.path)).filter((name) => name.startsWith('suspects/')),
      [`suspects/${spoiled.slice(-64)}`],
    )
  })

  test('is not left out of an index that is made anew, nor a loss for who collects garbage', async () => {
    await using temporary = await temporaryDatastore()
    const made = await temporary.reopen()
    await backUp(made, point(0), { scsi0: randomBytes(3 * chunk) })
    const packs = (await filesBelow(temporary.path)).filter((name) => name.startsWith('packs/'))
    const segments = (await filesBelow(temporary.path)).filter((name) => name.startsWith('segments/'))
    for (const pack of packs) {
      await without(temporary.path, pack, async () => {
        await assert.rejects(repairIndex(await temporary.reopen()), isDenied)
      })
    }
    for (const name of segments) await rm(join(temporary.path, name))
    await without(temporary.path, packName(packs[0]?.slice(-64) ?? ''), async () => {
      await collectGarbage(await temporary.reopen()).catch(() => {})
    })
    assert.deepEqual(await marksIn(temporary.path), [])
    await verifyDatastore(await temporary.reopen())
  })
})
