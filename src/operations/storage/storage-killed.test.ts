import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test, type TestContext } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { asVolumeId } from '#base/ids.ts'
import { silentLog } from '#base/log.ts'
import { machine } from '#host/exec.ts'
import { allOperations } from '#operations/all.ts'
import { StorageService } from '#storage/service.ts'
import { filesBelow } from '#storage/small-storage.ts'
import type { Json } from '#store/store.ts'
import { killedAtRandom } from '#tasks/killed-at-random.ts'
import { smallWeb } from '../../../test/fixtures/small-web.ts'
import { taskPlace } from '../../../test/fixtures/tasks/place.ts'

const workerEntry = fileURLToPath(new URL('../../worker.ts', import.meta.url))

/** A node with one storage that holds `a.iso`, and an upload on its way in. */
async function node(params: (spooled: string) => Json) {
  const place = await taskPlace()
  const { settings, store } = place
  const path = join(settings.stateDir, 'storage')
  const service = new StorageService({ settings, store, host: machine(), clock: systemClock, log: silentLog })
  await service.create({ storage: 'local', type: 'dir', path, content: 'iso' })
  const spooled = join(settings.stateDir, 'upload', 'claimed', 'upload-1')
  await mkdir(join(settings.stateDir, 'upload', 'claimed'), { recursive: true })
  const old = { storage: 'local', content: 'iso', fileName: 'a.iso', source: spooled, mark: 'setup' } as const
  await writeFile(spooled, 'old')
  await service.stageFile(old)
  await service.publishFile(asVolumeId('local:iso/a.iso'), 'setup')
  await writeFile(spooled, Buffer.alloc(4 * MiB, 'new'))
  return {
    stateDir: settings.stateDir,
    store,
    params: params(spooled),
    service: () =>
      place.service({
        operations: allOperations,
        workerEntry,
        // A node with one task needs nobody who waits for the next.
        idleMs: 0,
        settings: { ...settings, fetchNetworks: ['127.0.0.1'] },
      }),
    look: () => filesBelow(path),
    [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
  }
}

async function survives(
  t: TestContext,
  operation: string,
  params: (spooled: string) => Json,
  rounds = 25,
): Promise<void> {
  const report = await killedAtRandom({
    operation,
    rounds,
    seed: randomInt(1_000_000),
    say: (line) => t.diagnostic(line),
    makeWorld: () => node(params),
  })
  assert.ok(report.inTheMiddle > rounds / 5 && report.undone > 0, JSON.stringify(report))
}

test('an upload killed at random leaves the old file or the new one, and nothing else', (t) =>
  survives(t, 'imgcopy', (spooled) => ({ storage: 'local', content: 'iso', fileName: 'a.iso', spooled })))

test('a deletion killed at random leaves the whole file or none of it', (t) =>
  survives(t, 'imgdel', () => ({ volume: 'local:iso/a.iso' })))

test('a download killed at random leaves a whole file or none', async (t) => {
  using web = await smallWeb(randomBytes(4 * MiB))
  const from = web.url('/file')
  await survives(t, 'download', () => ({ storage: 'local', content: 'iso', fileName: 'b.iso', from }), 12)
})
