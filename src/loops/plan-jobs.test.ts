/** Scheduled plans run when they are due, as whoever scheduled them, and go on where one was interrupted. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { PlanJobs } from '#cluster/plan-jobs.ts'
import type { RunPlan } from '#operations/plans/run-plan.ts'
import type { RunState } from '#plans/run-state.ts'
import { PlanService } from '#plans/service.ts'
import { openMemoryStore } from '#store/memory.ts'
import { type PlanJobDeps, runDuePlans } from './plan-jobs.ts'

/** A lab whose clock is set by hand: every minute begins half a minute later. */
async function lab() {
  let now = Date.parse('2026-01-01T00:00:30Z')
  const clock: Clock = { now: () => now, monotonic: () => now, sleep: async () => {} }
  const store = openMemoryStore()
  const [planJobs, plans] = [new PlanJobs({ store, clock }), new PlanService({ store })]
  const started: { params: RunPlan; user: string }[] = []
  const said: string[] = []
  const active: { upid: string; type: string; id: string }[] = []
  const deps = {
    settings: { node: 'n' },
    clock,
    log: {
      info: (text: string) => said.push(text),
      error: (_: string, facts: unknown) => assert.fail(JSON.stringify(facts)),
    },
    machine: { timeZone: async () => 'UTC' },
    planJobs,
    plans,
    tasks: {
      active: () => active,
      start: async ({ params, user }: { params: unknown; user: string }) => {
        started.push({ params: params as RunPlan, user })
        return `UPID:${started.length}`
      },
    },
  } as unknown as PlanJobDeps
  const schedule = (more = {}) => {
    const request = { plan: 'plans/t.md', document: '# T', mode: 'run', where: 'live' }
    return planJobs.create('t', { schedule: '*:0/5', plan: 'plans/t.md', owner: 'op@pve!nightly', request, ...more })
  }
  return {
    plans,
    started,
    said,
    active,
    schedule,
    /** What is started when so many minutes have gone by. */
    after: async (minutes: number) => {
      now += minutes * 60_000
      return runDuePlans(deps)
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  }
}

const ended = (outcome: string) => ({ run: 'r', plan: { id: 'plans/t.md' }, outcome }) as unknown as RunState

test('a plan runs again when it is due, with the rights of its owner, and an unfinished run is gone on with', async () => {
  await using it = await lab()
  await it.schedule()
  assert.deepEqual(await it.after(0), [])
  assert.deepEqual(await it.after(5), ['UPID:1'])
  assert.deepEqual(await it.after(0), [])
  await it.plans.save(ended('interrupted'))
  assert.deepEqual(await it.after(5), ['UPID:2'])
  assert.deepEqual(
    it.started.map(({ params: { mode, where }, user }) => [mode, where, user]),
    [
      ['run', 'lab', 'op@pve!nightly'],
      ['resume', 'lab', 'op@pve!nightly'],
    ],
  )
})

test('a run that was missed is passed over and said, or made up for once where that is wanted', async () => {
  await using it = await lab()
  await it.schedule({ schedule: '01:00' })
  assert.deepEqual(await it.after(5 * 60), [])
  assert.deepEqual(it.said, ['a run of a plan job was missed'])
  assert.deepEqual(await it.after(20 * 60), ['UPID:1'])
  await using other = await lab()
  await other.schedule({ schedule: '01:00', 'repeat-missed': true })
  assert.deepEqual(await other.after(3 * 24 * 60 + 5 * 60), ['UPID:1'])
  assert.deepEqual(await other.after(1), [])
})

test('a plan that runs already, or that waits for somebody, is left alone until the next time', async () => {
  await using it = await lab()
  await it.schedule()
  // Begun by hand; another plan is no matter.
  it.active.push({ upid: 'UPID:x', type: 'hakoplan', id: 't' }, { upid: 'UPID:y', type: 'hakoplan', id: 'other' })
  assert.deepEqual(await it.after(5), [])
  it.active.shift()
  assert.deepEqual(await it.after(1), [])
  assert.deepEqual(await it.after(4), ['UPID:1'])
  await it.plans.save(ended('waiting'))
  assert.deepEqual(await it.after(5), [])
  assert.equal(it.said.filter((text) => text === 'a scheduled plan is left alone this time').length, 2)
  await it.plans.save(ended('decided'))
  assert.deepEqual(await it.after(5), ['UPID:2'])
})
