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

test('a plan runs again when it is due, with the rights of its owner, and an unfinished run is gone on with', async () => {
  let now = Date.parse('2026-01-01T00:00:30Z')
  const clock: Clock = { now: () => now, monotonic: () => now, sleep: async () => {} }
  await using store = openMemoryStore()
  const [planJobs, plans] = [new PlanJobs({ store, clock }), new PlanService({ store })]
  const started: { params: RunPlan; user: string }[] = []
  const deps = {
    settings: { node: 'n' },
    clock,
    log: { info: () => {}, error: (_: string, facts: unknown) => assert.fail(JSON.stringify(facts)) },
    machine: { timeZone: async () => 'UTC' },
    planJobs,
    plans,
    tasks: {
      active: () => [],
      start: async ({ params, user }: { params: unknown; user: string }) => {
        started.push({ params: params as RunPlan, user })
        return `UPID:${started.length}`
      },
    },
  } as unknown as PlanJobDeps
  const request = { plan: 'plans/t.md', document: '# T', mode: 'run', where: 'live' }
  await planJobs.create('t', { schedule: '*:0/5', plan: 'plans/t.md', owner: 'op@pve!nightly', request })

  assert.deepEqual(await runDuePlans(deps), [])
  now += 5 * 60_000
  assert.deepEqual(await runDuePlans(deps), ['UPID:1'])
  assert.deepEqual(await runDuePlans(deps), [])
  await plans.save({ run: 'r', plan: { id: 'plans/t.md' }, outcome: 'interrupted' } as unknown as RunState)
  now += 5 * 60_000
  assert.deepEqual(await runDuePlans(deps), ['UPID:2'])

  assert.deepEqual(
    started.map(({ params: { mode, where }, user }) => [mode, where, user]),
    [
      ['run', 'lab', 'op@pve!nightly'],
      ['resume', 'lab', 'op@pve!nightly'],
    ],
  )
})
