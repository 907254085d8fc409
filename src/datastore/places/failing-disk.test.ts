/** A disk that fails below a datastore: what it does not give out is named and the rest can be read; what it does not take is no backup. */
import assert from 'node:assert/strict'
import { after, suite, test } from 'node:test'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { deps, disk, filesBelow } from '../../../test/fixtures/datastore.ts'
import { failingDisk } from '../../../test/fixtures/failing-disk.ts'
import { backUp, makeDatastore, point, restored, secret } from '../../../test/fixtures/sealed-datastore.ts'
import { openDatastore } from '../datastore.ts'
import { FolderPlace } from './folder-place.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { printPoint } from '../point.ts'
import { verifyDatastore } from '../verify/verify-datastore.ts'
import { verifyBackup } from '../verify/verify.ts'

const isDiskError = (fault: unknown) =>
  isFault(fault, 'failed') && /its? disk|the disk of .* reports an error/.test(fault.message)

suite('a datastore on a disk that fails', async () => {
  const place = await failingDisk(64 * MiB)
  after(() => place[Symbol.asyncDispose]())

  test('names what cannot be read, and gives out everything else', async () => {
    await using made = await makeDatastore(join(place.path, 'reads'))
    const [one, other] = [disk('rrrr'), disk('rrrr')]
    const [first, second] = [point(0), point(1, '101')]
    await backUp(await made.reopen(), first, { scsi0: one })
    await backUp(await made.reopen(), second, { scsi0: other })
    await (await made.reopen()).datastore.mark(first, { notes: 'before the update' })
    const kinds = ['keys', 'backups', 'packs', 'segments', 'marks']
    for (const file of (await Promise.all(kinds.map((kind) => filesOf(made.path, kind)))).flat()) {
      // Put in order by what came before.
      if (!existsSync(join(made.path, file))) continue
      await place.fail({ how: 'read', sectors: [await place.sectorOf(join(made.path, file), 0)] })
      await place.forget()
      const named = new RegExp(file.slice(-64))
      const isNamed = (fault: unknown) => isFault(fault, 'damaged') && named.test(fault.message)
      if (file.startsWith('keys')) await assert.rejects(made.reopen(), isNamed)
      else {
        const open = await made.reopen()
        if (file.startsWith('marks')) {
          assert.match((await open.datastore.list())[0]?.damage ?? '', named)
          await assert.rejects(open.datastore.remove(first), isNamed)
        } else if (file.startsWith('segments')) {
          assert.match((await verifyDatastore(open)).mended.join('\n'), named)
        } else await assert.rejects(verifyDatastore(open), isNamed)
        const lost: string[] = []
        for (const [name, content] of [
          [first, one],
          [second, other],
        ] as const) {
          const found = await restored(open, name, 'scsi0').catch((fault: unknown) => {
            assert.ok(isFault(fault, 'damaged'), String(fault))
            lost.push(printPoint(name))
          })
          if (found) assert.ok(found.equals(content))
        }
        assert.ok(lost.length < 2, `${file}: ${lost.join()}`)
        if (file.startsWith('packs')) {
          // What the guests still have is stored anew.
          for (const [name, content] of [
            [first, one],
            [second, other],
          ] as const) {
            const again = { ...name, time: name.time + 10 }
            await backUp(await made.reopen(), again, { scsi0: content })
            await verifyBackup(await made.reopen(), name)
            await (await made.reopen()).datastore.remove(again)
          }
        }
        if (file.startsWith('segments')) assert.deepEqual(lost, [])
      }
      await place.heal()
    }
    await verifyDatastore(await made.reopen())
  })

  test('takes no backup it cannot write, keeps those it has, and gives the space back', async () => {
    const path = join(place.path, 'writes')
    const opened = async () => {
      const folder = new FolderPlace(path, systemRandom)
      return { folder, open: await (await openDatastore(folder, deps)).unlock(secret) }
    }
    const act = async (work: (open: Awaited<ReturnType<typeof opened>>['open']) => Promise<unknown>) => {
      const { folder, open } = await opened()
      await using _folder = folder
      await work(open)
    }
    await using undo = new AsyncDisposableStack()
    const made = await makeDatastore(path)
    undo.use(made)
    const contents = new Map<string, Buffer>()
    const kept = async () => {
      await act(async (open) => {
        const points = await open.datastore.points()
        assert.deepEqual(points.map(printPoint).toSorted(), [...contents.keys()].toSorted())
        for (const one of points) {
          assert.ok((await restored(open, one, 'scsi0')).equals(contents.get(printPoint(one)) ?? Buffer.alloc(0)))
        }
      })
    }
    const shared = disk('rr')
    for (const time of [0, 1, 2]) {
      const content = Buffer.concat([shared, randomBytes(MiB)])
      await act((open) => backUp(open, point(time), { scsi0: content }))
      contents.set(printPoint(point(time)), content)
    }
    await place.forget()
    const acts: Readonly<Record<string, Parameters<typeof act>[0]>> = {
      'a backup': (open) => backUp(open, point(9), { scsi0: randomBytes(4 * MiB) }),
      'a collection of garbage': async (open) => {
        await open.datastore.remove(point(0))
        contents.delete(printPoint(point(0)))
        await collectGarbage(open)
      },
      'a mark': (open) => open.datastore.mark(point(1), { protected: true }),
    }
    for (const [name, work] of Object.entries(acts)) {
      await place.fail({ how: 'write' })
      await assert.rejects(act(work), isDiskError, name)
      await kept()
      await place.repair()
      // What was removed and not written down may be there again, whole.
      await act(async (open) => {
        for (const one of await open.datastore.points()) {
          if (!contents.has(printPoint(one))) await open.datastore.remove(one)
        }
      })
      await kept()
    }
    await act(async (open) => {
      await collectGarbage(open)
      await verifyDatastore(open)
      const packs = (await filesBelow(join(path, 'packs'))).length
      const named = new Set(open.index.segments.flatMap((segment) => segment.packs))
      assert.equal(packs, named.size, 'packs nobody knows')
      assert.deepEqual(await filesBelow(join(path, 'tmp')), [])
      await backUp(open, point(10), { scsi0: randomBytes(300 * KiB) })
      await verifyBackup(open, point(10))
    })
  })
})

async function filesOf(path: string, kind: string): Promise<string[]> {
  const files = (await filesBelow(path)).filter((name) => name.startsWith(`${kind}/`))
  assert.ok(files.length > 0, kind)
  return files
}
