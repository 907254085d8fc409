import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { contentOf, makeAlbum } from '../../test/fixtures/tasks/operations.ts'
import { taskPlace } from '../../test/fixtures/tasks/place.ts'
import { everyStepFails } from './conformance.ts'
import { killedAtRandom } from './killed-at-random.ts'

everyStepFails(makeAlbum, async () => {
  const root = await mkdtemp(join(tmpdir(), 'hako-album-'))
  await writeFile(join(root, 'other'), 'must stay')
  await mkdir(join(root, 'others'))
  return {
    params: { root, name: 'new' },
    deps: {},
    look: () => contentOf(root),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  }
})

test('a worker killed at random leaves nothing behind and nothing half done', async (t) => {
  const report = await killedAtRandom({
    operation: 'mkalbum',
    rounds: 200,
    seed: randomInt(1_000_000),
    say: (line) => t.diagnostic(line),
    makeWorld: async () => {
      const place = await taskPlace()
      return {
        stateDir: place.settings.stateDir,
        store: place.store,
        params: { root: place.root, name: 'new' },
        // Hundreds of nodes with one task each need nobody who waits for the next.
        service: () => place.service({ idleMs: 0 }),
        look: () => contentOf(place.root),
        [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
      }
    },
  })
  // Otherwise the kills fell where there is nothing to break, and the test proves nothing.
  assert.ok(report.inTheMiddle > 60, JSON.stringify(report))
  assert.ok(report.undone > 0 && report.succeeded > 0, JSON.stringify(report))
  assert.ok(report.recoveriesKilled > 0 && report.daemonsKilled > 0, JSON.stringify(report))
})
