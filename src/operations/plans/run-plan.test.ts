/** Whatever fails in a run of a plan, what it did is told by evidence that holds, and nothing of it stays half written. */
import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { seconds, systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { PlanService } from '#plans/service.ts'
import type { ApiCaller } from '#plans/world.ts'
import { RecoveryService } from '#recovery/service.ts'
import { openMemoryStore } from '#store/memory.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { printUpid } from '#tasks/upid.ts'
import { type PlanDeps, type RunPlan, runPlan } from './run-plan.ts'

const document = `# T

## Metadata

- Plan ID: plans/t.md

## Concrete steps

- [ ] Ask

  \`\`\`step
  id: ask
  class: read
  run: { api: GET /version }
  expect: { version: 1 }
  \`\`\`
`
const params: RunPlan = {
  mode: 'run',
  plan: 'plans/t.md',
  document,
  values: {},
  secrets: {},
  where: 'live',
  confirmed: [],
  mayDestroyLive: false,
  answers: {},
  decisions: [],
}
const api: ApiCaller = {
  call: async () => ({ version: 1 }),
  command: async () => {
    throw new Fault('invalid', 'no commands here')
  },
}

async function world(call: ApiCaller['call'] = api.call) {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-plan-'))
  const store = openMemoryStore()
  const settings = { stateDir, node: 'n' } as PlanDeps['settings']
  const [recovery, plans] = [new RecoveryService({ stateDir }), new PlanService({ store })]
  const deps: PlanDeps = { settings, clock: systemClock, store, recovery, plans, apiOf: async () => ({ ...api, call }) }
  return {
    params,
    deps,
    /** Attempts nobody can prove, and evidence that was begun. */
    async look() {
      const attempts = (await plans.list()).flatMap((run) => run.attempts)
      const unproven = []
      for (const { id, ended } of attempts) {
        const isGood = ended !== undefined && (await recovery.verify(id).then(({ ok }) => ok))
        if (!isGood) unproven.push(id)
      }
      const left = (await readdir(join(stateDir, 'evidence')).catch(() => [])).filter((name) => name.endsWith('.tmp'))
      return { unproven, left }
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]()
      await rm(stateDir, { recursive: true, force: true })
    },
  }
}

let pid = 1000
/** As a task of its own each time. */
async function performed(wanted: RunPlan, deps: PlanDeps) {
  pid += 1
  const [node, user, startTime] = ['n', 'root@pam', seconds(systemClock)]
  const upid = printUpid({ node, pid, pstart: 1, starttime: startTime, type: 'hakoplan', id: '', user })
  return perform(runPlan, wanted, deps, memoryJournal(), { task: { upid, user, node, startTime } })
}

everyStepFails(runPlan, () => world(), { leavesNothing: true })

suite('a run of a plan as an operation', () => {
  test('a step that does not hold fails the task after its evidence is kept', async () => {
    await using place = await world(async () => ({ version: 2 }))
    await assert.rejects(performed(params, place.deps), {
      kind: 'unproven',
      message: /failed at 'ask': version: expected is 1, found 2/,
    })
    const [run] = await place.deps.plans.list()
    assert.equal(run?.outcome, 'failed')
    assert.deepEqual(await place.look(), { unproven: [], left: [] })
  })

  test('an unfinished run is gone on with, not begun beside', async () => {
    let version = 2
    await using place = await world(async () => ({ version }))
    const as = (mode: RunPlan['mode']) => performed({ ...params, mode }, place.deps)
    await assert.rejects(as('resume'), { kind: 'missing' })
    await assert.rejects(as('run'), { kind: 'unproven' })
    await assert.rejects(as('run'), { kind: 'conflict' })
    version = 1
    await as('resume')
    const [one, ...others] = await place.deps.plans.list()
    assert.deepEqual(
      [one?.outcome, one?.attempts.map(({ outcome }) => outcome), others],
      ['proven', ['failed', 'proven'], []],
    )
    assert.deepEqual(await place.look(), { unproven: [], left: [] })
    await assert.rejects(as('resume'), { kind: 'missing' })
  })

  test('a node that is no lab runs what is meant for one, not', async () => {
    await using place = await world()
    await assert.rejects(performed({ ...params, where: 'lab' }, place.deps), { kind: 'denied' })
  })

  test('a secret is neither in the state nor in the evidence', async () => {
    const secret = 'correct-horse-battery'
    const seen: unknown[] = []
    await using place = await world(async ({ params: sent }) => {
      seen.push(sent)
      throw new Fault('failed', `the password ${secret} is too long`)
    })
    const settings = '```plan\nvariables: { pw: { type: secret } }\n```\n\n## Concrete steps'
    const text = document
      .replace('## Concrete steps', settings)
      .replace('run: { api: GET /version }', 'run: { api: PUT /access/password, with: { password: "${{ pw }}" } }')
      .replace('class: read', 'class: change')
    await assert.rejects(performed({ ...params, document: text, secrets: { pw: secret } }, place.deps))
    assert.deepEqual(seen, [{ password: secret }])
    const [run] = await place.deps.plans.list()
    assert.equal(run?.outcome, 'failed')
    const told = JSON.stringify([run, await place.deps.recovery.record(run.attempts[0]?.id ?? '')])
    assert.ok(told.includes('********'))
    assert.ok(!told.includes(secret))
  })
})
