/** Runs of a plan against a small node: killed anywhere they go on, and what is not granted is not done. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { slowness } from './attempt.ts'
import { documentOf } from './document.ts'
import { planOf } from './plan.ts'
import { PlanRun, type RunOptions } from './run.ts'
import type { Attempt, RunState } from './run-state.ts'
import { Killed, SmallNode } from './small-node.ts'
import type { PlanWorld } from './world.ts'

const step = (text: string, block: string) =>
  `- [ ] ${text}\n\n  \`\`\`step\n${block.trim().replaceAll(/^/gm, '  ')}\n  \`\`\`\n`
const planText = (steps: string, settings = '') =>
  `# T\n\n## Metadata\n\n- Plan ID: plans/t.md\n\n${settings}\n\n## Concrete steps\n\n${steps}\n`
const whole = planText(
  [
    step(
      'runs',
      'id: runs\nclass: read\nrun: { api: GET /nodes/n/qemu/100/status/current }\nexpect: { status: running }',
    ),
    step(
      'backup',
      `
id: backup
class: create
run: { api: POST /nodes/n/vzdump, with: { vmid: 100 } }
look: { api: GET /hako/backups }
record: { volid: 0.volid }
makes: backup/\${{ steps.backup.volid }}
undo: { api: "DELETE /hako/backups/\${{ steps.backup.volid }}" }
scratch: true
repeatable: true`,
    ),
    step(
      'restore',
      `
id: restore
class: create
run: { api: POST /hako/restore, with: { archive: "\${{ steps.backup.volid }}", vmid: 900 } }
makes: guest/900
undo:
  - api: POST /nodes/n/qemu/900/status/stop
  - api: DELETE /nodes/n/qemu/900
scratch: true`,
    ),
    step(
      'start',
      'id: start\nclass: change\nrun: { api: POST /nodes/n/qemu/900/status/start }\nundo: { api: POST /nodes/n/qemu/900/status/stop }',
    ),
    step(
      'user',
      'id: user\nclass: create\nrun: { api: POST /access/users, with: { userid: op@pve } }\nmakes: user/op@pve\nundo: { api: DELETE /access/users/op@pve }',
    ),
    step('up', 'id: up\nclass: read\nrun: { api: GET /nodes/n/qemu/900/status/current }\nexpect: { status: running }'),
  ].join('\n'),
)

function options(node: SmallNode, text: string, given: Partial<RunOptions> = {}): RunOptions {
  const world: PlanWorld = {
    clock: systemClock,
    node: 'n',
    call: node.call,
    command: async (words) => {
      throw new Fault('invalid', `'${words.join(' ')}' is no command`)
    },
    startedBy: async (parent) => node.tasks.filter((task) => task.parent === parent).map(({ upid }) => upid),
    save: node.save,
    log: () => {},
    warn: () => {},
    progress: () => {},
    hide: (line) => line,
    signal: new AbortController().signal,
  }
  return {
    plan: planOf(documentOf(text)),
    world,
    secrets: new Map(),
    grants: { confirmed: [], mayDestroyLive: false, scope: [] },
    by: 'root@pam',
    answers: {},
    decisions: [],
    earlier: new Map(),
    isProven: async () => true,
    ...given,
  }
}

function fresh(upid: string, where: 'lab' | 'live' = 'lab'): RunState {
  const first: Attempt = {
    id: upid,
    upid,
    started: '2026-01-01T00:00:00Z',
    outcome: 'running',
    surprises: [],
    decisions: [],
  }
  const plan = { id: 'plans/t.md', slug: 't', title: 'T', digest: '' }
  return {
    run: upid,
    node: 'n',
    plan,
    starter: 'root@pam',
    where,
    version: '1',
    started: first.started,
    outcome: 'running',
    values: {},
    steps: {},
    made: [],
    attempts: [first],
  }
}

/** Runs until it is proven, beginning again after each kill. */
async function untilProven(node: SmallNode, text: string, kills: readonly number[]): Promise<RunState> {
  for (const [round, killAt] of [...kills, Infinity].entries()) {
    node.attempt = `attempt-${round}`
    node.events = 0
    node.killAt = killAt
    const begun = fresh(node.attempt)
    const state = node.saved ? { ...node.saved, attempts: [...node.saved.attempts, ...begun.attempts] } : begun
    const run = new PlanRun(state, options(node, text))
    try {
      await run.perform()
      return run.state
    } catch (error) {
      if (!(error instanceof Killed)) throw error
    }
  }
  throw new Error('never reached')
}

suite('a run of a plan', () => {
  test('goes step by step, and what was only for the run is gone at its end', async () => {
    const node = new SmallNode()
    const state = await untilProven(node, whole, [])
    assert.equal(state.outcome, 'proven', JSON.stringify(state.steps))
    assert.deepEqual(node.remains(), { guests: [['100', 'running']], backups: [], users: ['op@pve'] })
    assert.deepEqual(state.made, [{ object: 'user/op@pve', step: 'user' }])
  })

  test('killed at any moment, it goes on to the same end', async () => {
    const quiet = new SmallNode()
    await untilProven(quiet, whole, [])
    for (let killAt = 1; killAt <= quiet.events; killAt += 1) {
      const node = new SmallNode()
      const state = await untilProven(node, whole, [killAt])
      assert.equal(state.outcome, 'proven', `killed at ${killAt}: ${JSON.stringify(state.steps)}`)
      assert.deepEqual(node.remains(), quiet.remains(), `killed at ${killAt}`)
    }
  })

  test('killed again and again, it goes on to the same end', async () => {
    const node = new SmallNode()
    const kills = Array.from({ length: 60 }, (_, at) => 3 + ((at * 7) % 11))
    const state = await untilProven(node, whole, kills)
    assert.equal(state.outcome, 'proven')
    assert.deepEqual(node.remains(), { guests: [['100', 'running']], backups: [], users: ['op@pve'] })
  })

  test('taken back, nothing of it is left', async () => {
    const node = new SmallNode()
    node.guests.set('100', 'stopped')
    const failing = whole.replace(
      '/900/status/current }\n  expect: { status: running }',
      '/900/status/current }\n  expect: { status: burning }',
    )
    node.guests.set('100', 'running')
    const run = new PlanRun(fresh('a'), options(node, failing))
    await run.perform()
    assert.equal(run.state.outcome, 'failed')
    assert.equal(node.guests.get('900'), 'running')
    await run.undo()
    assert.equal(run.state.outcome, 'undone')
    assert.deepEqual(node.remains(), { guests: [['100', 'running']], backups: [], users: [] })
  })

  test('killed at any moment and taken back, nothing of it is left', async () => {
    const quiet = new SmallNode()
    await untilProven(quiet, whole, [])
    for (let killAt = 1; killAt <= quiet.events; killAt += 1) {
      const node = new SmallNode()
      node.killAt = killAt
      node.attempt = 'a'
      await assert.rejects(new PlanRun(fresh('a'), options(node, whole)).perform(), Killed)
      if (!node.saved) continue
      node.killAt = Infinity
      const undo = new PlanRun(
        { ...node.saved, attempts: [...node.saved.attempts, ...fresh('b').attempts] },
        options(node, whole),
      )
      await undo.undo()
      assert.equal(undo.state.outcome, 'undone', `killed at ${killAt}`)
      assert.deepEqual(node.remains(), { guests: [['100', 'running']], backups: [], users: [] }, `killed at ${killAt}`)
    }
  })

  const destroy = (object: string) =>
    planText(
      step('gone', `id: gone\nclass: destroy\ndestroys: ${object}\nrun: { api: DELETE /nodes/n/qemu/100 }`),
      '```plan\nscope: [guest/100]\n```',
    )
  const grants = { confirmed: ['guest/100'], mayDestroyLive: false, scope: ['guest/100'] }
  const attempt = async (text: string, given: Partial<RunOptions>, where: 'lab' | 'live' = 'lab') => {
    const node = new SmallNode()
    const run = new PlanRun(fresh('a', where), options(node, text, given))
    await run.perform()
    return { node, outcome: run.state.outcome, found: Object.values(run.state.steps)[0]?.found ?? '' }
  }

  test('destroys only what is in its scope, typed, and granted where it is live', async () => {
    const good = await attempt(destroy('guest/100'), { grants })
    assert.equal(good.outcome, 'proven')
    assert.equal(good.node.guests.has('100'), false)
    const refusals = [
      [await attempt(destroy('guest/100'), { grants: { ...grants, scope: [] } }), /not in the scope/],
      [await attempt(destroy('guest/100'), { grants: { ...grants, confirmed: [] } }), /only when its name is typed/],
      [await attempt(destroy('guest/100'), { grants }, 'live'), /without a grant/],
      [
        await attempt(destroy('guest/555'), { grants: { ...grants, confirmed: ['guest/555'], scope: ['guest/555'] } }),
        /would destroy guest\/100/,
      ],
    ] as const
    for (const [{ node, outcome, found }, why] of refusals) {
      assert.equal(outcome, 'failed')
      assert.match(found, why)
      assert.deepEqual(node.calls, [])
    }
    assert.equal(
      (await attempt(destroy('guest/100'), { grants: { ...grants, mayDestroyLive: true } }, 'live')).outcome,
      'proven',
    )
  })

  test('destroys nothing under another flag: an overwriting restore, an undo of what is not its own', async () => {
    const forced = planText(
      step('x', 'id: x\nclass: change\nrun: { api: POST /hako/restore, with: { vmid: 100, force: 1 } }'),
    )
    assert.match((await attempt(forced, {})).found, /would destroy guest\/100/)
    const undo = planText(
      [
        step(
          'x',
          'id: x\nclass: change\nrun: { api: POST /nodes/n/qemu/100/status/start }\nundo: { api: DELETE /nodes/n/qemu/100 }\nscratch: true',
        ),
      ].join('\n'),
    )
    const { node, outcome } = await attempt(undo, {})
    assert.equal(outcome, 'failed')
    assert.equal(node.guests.has('100'), true)
  })

  test('does not make what is there already', async () => {
    const node = new SmallNode()
    node.guests.set('900', 'running')
    const run = new PlanRun(fresh('a'), options(node, whole))
    await run.perform()
    assert.equal(run.state.outcome, 'failed')
    assert.match(run.state.steps.restore?.found ?? '', /guest\/900 exists already/)
    assert.equal(node.guests.get('900'), 'running')
  })

  test('what may not be repeated, and may have been done, waits for a decision', async () => {
    const text = planText(step('x', 'id: x\nclass: change\nrun: { api: PUT /nodes/n/qemu/100/config }'))
    const node = new SmallNode()
    node.killAt = 5
    const first = new PlanRun(fresh('a'), options(node, text))
    await assert.rejects(first.perform(), Killed)
    const count = node.calls.length
    node.killAt = Infinity
    assert.ok(node.saved)
    const again = (given: Partial<RunOptions>) => {
      const [begun] = fresh('b').attempts
      assert.ok(node.saved && begun)
      return new PlanRun({ ...node.saved, attempts: [...node.saved.attempts, begun] }, options(node, text, given))
    }
    const second = again({})
    await second.perform()
    assert.equal(second.state.outcome, 'waiting')
    assert.equal(node.calls.length, count)
    const decision = { at: '', kind: 'skip', step: 'x', reason: 'seen to be done', by: 'root@pam' } as const
    const third = again({ decisions: [decision] })
    await third.perform()
    assert.equal(third.state.outcome, 'decided')
    assert.equal(third.state.steps.x?.reason, 'seen to be done')
  })

  test('a decision on what is proven already changes nothing, and says so', async () => {
    const text = planText(step('x', 'id: x\nclass: read\nrun: { ask: Is it there? }\nexpect: {}'))
    const node = new SmallNode()
    const first = new PlanRun(fresh('a'), options(node, text, { answers: { x: 'yes' } }))
    await first.perform()
    assert.ok(node.saved)
    const decision = { at: '', kind: 'skip', step: 'x', reason: 'we know', by: 'root@pam' } as const
    const again = { ...node.saved, attempts: [...node.saved.attempts, ...fresh('b').attempts] }
    const second = new PlanRun(again, options(node, text, { decisions: [decision] }))
    await second.perform()
    assert.equal(second.state.steps.x?.result, 'proven')
    assert.deepEqual(
      second.attempt.surprises.map((one) => [one.step, one.text]),
      [['x', "it is proven already: 'skip' changes nothing"]],
    )
  })

  test('only what is clearly slower than it was is worth a word', () => {
    assert.equal(slowness(9_000, [5_000, 4_000, 6_000]), undefined)
    assert.equal(slowness(60_000, []), undefined)
    assert.equal(slowness(20_000, [5_000, 4_000, 6_000]), 'it took 20.0 s, usually 5.0 s')
  })

  test('a question waits for its answer, and only a good one will do', async () => {
    const text = planText(
      step('x', 'id: x\nclass: read\nrun: { ask: Is it there?, choices: ["yes", "no"] }\nexpect: {}'),
    )
    assert.equal((await attempt(text, {})).outcome, 'waiting')
    assert.equal((await attempt(text, { answers: { x: 'maybe' } })).outcome, 'failed')
    assert.equal((await attempt(text, { answers: { x: 'yes' } })).outcome, 'proven')
  })

  test('a wait ends when what it waits for is there, and with its time', async () => {
    const waiting = (wanted: string) =>
      planText(
        step(
          'x',
          `id: x\nclass: read\ntimeout: 1\nrun: { wait: { api: GET /nodes/n/qemu/100/status/current }, for: { status: ${wanted} } }`,
        ),
      )
    assert.equal((await attempt(waiting('running'), {})).outcome, 'proven')
    const { outcome, found } = await attempt(waiting('stopped'), {})
    assert.deepEqual(
      [outcome, found],
      ['failed', 'not within the time of the step: status: expected is stopped, found running'],
    )
  })

  test('a probe asks in the guest: for a file, for a program, or whether there is anybody', async () => {
    const seen: string[] = []
    const probing = async (what: string) => {
      const text = planText(
        step('x', `id: x\nclass: change\nrun: { probe: { guest: 100${what} } }\nexpect: { exitcode: 0 }`),
      )
      const given = options(new SmallNode(), text)
      const command: PlanWorld['command'] = async (words) => {
        seen.push(words.join(' '))
        const call = { method: 'GET', path: '/nodes/n/qemu/100/status/current', params: {} } as const
        return { call, finish: async () => ({ exitcode: 0, out: '', err: '' }) }
      }
      const run = new PlanRun(fresh('a'), { ...given, world: { ...given.world, command } })
      await run.perform()
      return run.state.outcome
    }
    const outcomes = [await probing(''), await probing(', file: /etc/motd'), await probing(', run: [ls, -l]')]
    assert.deepEqual(outcomes, ['proven', 'proven', 'proven'])
    assert.deepEqual(seen, ['vm exec 100 -- true', 'vm exec 100 -- cat /etc/motd', 'vm exec 100 -- ls -l'])
  })

  test('what a variable holds stays one word of a command', async () => {
    const text = planText(step('x', 'id: x\nclass: read\nrun: { hako: "vm show ${{ what }} -o json" }'))
    const given = options(new SmallNode(), text)
    const seen: (readonly string[])[] = []
    const command: PlanWorld['command'] = async (words) => {
      seen.push(words)
      throw new Fault('invalid', 'no such command')
    }
    const what = '100; rm -rf / && hako vm delete 100 $(reboot) ${{ run }}'
    await new PlanRun({ ...fresh('a'), values: { what } }, { ...given, world: { ...given.world, command } }).perform()
    assert.deepEqual(seen, [['vm', 'show', what, '-o', 'json']])
  })

  test('what was found is told with its places filled, and without secrets', async () => {
    const text = planText(
      step(
        'x',
        'id: x\nclass: change\nrun: { api: POST /nodes/n/qemu/100/status/start, with: { key: "${{ secret }}" } }\nlook: { api: "GET /nodes/n/qemu/${{ vmid }}/status/current" }\nexpect: { status: "${{ wanted }}", other: { not: "${{ vmid }}" } }',
      ),
    )
    const given = options(new SmallNode(), text, { secrets: new Map([['secret', 'correct-horse']]) })
    const run = new PlanRun({ ...fresh('a'), values: { vmid: 100, wanted: 'running' } }, given)
    await run.perform()
    assert.equal(run.state.steps.x?.found, 'status is running, other not 100')
    assert.ok(!JSON.stringify(run.state).includes('correct-horse'))
  })

  test('a value brings no words, no path and no places of its own', async () => {
    const text = planText(
      step('x', 'id: x\nclass: read\nrun: { api: "GET /nodes/n/qemu/${{ where }}/status/current" }'),
    )
    const node = new SmallNode()
    for (const where of ['../../access/users', '100/config', '${{ run }}']) {
      const run = new PlanRun({ ...fresh('a'), values: { where } }, options(node, text))
      await run.perform()
      assert.equal(run.state.outcome, 'failed', where)
    }
    assert.deepEqual(node.calls, [])
  })
})
