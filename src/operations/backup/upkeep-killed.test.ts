/** What a node does for its datastores by itself, killed at any of its steps: nothing is lost, left over, or told twice. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { anyStep, KilledUpkeep, kinds } from '../../../test/fixtures/upkeep/killed.ts'

/** As many as there were when somebody counted. */
const steps = { look: 60, copy: 30, collection: 42, 'making jobs': 12, 'starting jobs': 12 } as const

test('whoever dies while it looks after datastores loses nothing, and the next one goes on', async (t) => {
  await using upkeep = await KilledUpkeep.made()
  const died: string[] = []
  for (const kind of kinds) {
    const where = await upkeep.killed(kind, anyStep(steps[kind]))
    t.diagnostic(`${kind}: died ${where ?? 'not at all'}`)
    if (where !== undefined) died.push(where)
  }
  assert.ok(died.length > 0, 'nobody died')
  assert.match(await upkeep.logWithoutIndex(), /^the index of '.*' mends itself: a part of it was gone; \d+ chunks in/m)
})
