/** Files that change while they are read. */
import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { nextTick, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'

test('a file that is written to while it is read is told of by name, and the others are not', async (t) => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const tree = mkdtempSync(join(tmpdir(), 'hako-torn-'))
  t.after(() => rmSync(tree, { recursive: true }))
  mkdirSync(join(tree, 'folder'))
  for (const name of ['calm', 'folder/grown', 'folder/shrunk'])
    writeFileSync(join(tree, name), Buffer.alloc(300_000, 7))
  await nextTick()
  const writes: Readonly<Record<string, () => void>> = {
    grown: () => appendFileSync(join(tree, 'folder/grown'), 'more'),
    shrunk: () => truncateSync(join(tree, 'folder/shrunk'), 100_000),
  }
  const source = unsettledSource({ root: tree })
  const folders = source.folders.bind(source)
  const written = Object.assign(source, {
    *folders() {
      for (const folder of folders()) {
        yield {
          path: folder.path,
          *entries() {
            for (const entry of folder.entries()) {
              // Asked once the file is open, and before it is read.
              const attributes = Object.getPrototypeOf(entry).attributes as typeof entry.attributes
              yield Object.assign(entry, {
                attributes(fd?: number) {
                  writes[entry.name]?.()
                  return attributes.call(entry, fd)
                },
              })
            }
          },
        }
      }
    },
  })
  await using writer = await open.begin({ namespace: '', type: 'host', id: 'home', time: 1_795_000_000 })
  const torn: string[] = []
  await writer.addTree('rootfs', written, { onTorn: (path) => torn.push(path) })
  await writer.commit()
  assert.deepEqual(torn.toSorted(), ['folder/grown', 'folder/shrunk'])
})
