import assert from 'node:assert/strict'
import { mkdir, readdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isAlive } from '#host/programs/proc.ts'
import { contentOf } from '../../test/fixtures/tasks/operations.ts'
import { taskPlace } from '../../test/fixtures/tasks/place.ts'
import { parseUpid } from './upid.ts'

test('an end that was lost with the power is told again as it was', async () => {
  await using place = await taskPlace()
  // With the power every process goes, also one that would do another task.
  const tasks = place.service({ idleMs: 0 })
  const upid = await tasks.start({ operation: 'mkalbum', params: { root: place.root, name: 'a' }, user: 'root@pam' })
  const before = await tasks.wait(upid, { timeoutMs: 60_000 })
  const [made, log] = [await contentOf(place.root), await tasks.rawLog(upid)]
  const { pid, pstart } = parseUpid(upid)
  await waitFor(async () => !(await isAlive(pid, pstart)), { what: 'the end of its process', timeoutMs: 60_000 })
  await truncate(join(place.settings.stateDir, 'tasks', upid, 'end.json'), 0)
  const next = place.service()
  await next.recover()
  assert.deepEqual(await next.status(upid), before)
  assert.deepEqual([await contentOf(place.root), await next.rawLog(upid)], [made, log])
})

test('a request that was cut off by a loss of power was never promised', async () => {
  await using place = await taskPlace()
  const tasks = join(place.settings.stateDir, 'tasks')
  const half = join(tasks, 'UPID:testnode:00000001:00000001:00000001:hold:a:root@pam:')
  await mkdir(half, { recursive: true })
  await writeFile(join(half, 'request.json'), '{"operation":"ho')
  await place.service().recover()
  assert.deepEqual(await readdir(tasks), [])
})
