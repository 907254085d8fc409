/**
 * What every operation promises, as tests: whatever fails and whenever its process dies, the world is as it
 * was before or as it is after success, and nothing else.
 *
 * `everyStepFails` breaks one thing at a time inside this process; `killedAtRandom` (beside it) kills real
 * workers at random moments.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { seconds, systemClock } from '#base/clock.ts'
import { type Journal, type JournalRecord, memoryJournal, stateOf } from './journal.ts'
import { type NamedStep, Operation } from './operation.ts'
import { type Around, perform, unwind } from './perform.ts'
import { printUpid } from './upid.ts'

export interface OperationWorld<P, D> extends AsyncDisposable {
  readonly params: P
  readonly deps: D
  /** All that the operation could leave behind, as a value that is equal when the world is the same. */
  readonly look: () => Promise<unknown>
}

export interface EveryStepFailsOptions {
  /** True for an operation whose success leaves the world as it was, such as a drill. Default: false. */
  readonly leavesNothing?: boolean
  /**
   * Also let the process die at every moment that differs from the others, and undo everything twice. Costs about
   * five more runs per step. Default: true.
   */
  readonly withCrashes?: boolean
  /**
   * True for one act that nothing can take back, such as pulling a plug: after a failure the world may also be
   * as after success, but never in between. Default: false.
   */
  readonly isFinal?: boolean
}

class Injected extends Error {}

/** Declares the tests of one operation. `makeWorld` makes a world of its own for every run. */
export function everyStepFails<P, D, Done extends object>(
  operation: Operation<P, D, Done>,
  makeWorld: () => Promise<OperationWorld<NoInfer<P>, NoInfer<D>>>,
  { leavesNothing = false, withCrashes = true, isFinal = false }: EveryStepFailsOptions = {},
): void {
  const seen = { afterSuccess: new Map(), moments: new Set<string>() }
  const bench: Bench<P, D, Done> = { operation, makeWorld, leavesNothing, isFinal, ...seen }
  describe(`operation ${operation.name}`, () => {
    succeeds(bench)
    for (const step of operation.steps) {
      failsAt(bench, step, 'before')
      failsAt(bench, step, 'after')
      if (step.undo) undoFailsOnce(bench, step)
    }
    interruptedBeforeEachStep(bench)
    if (withCrashes) {
      crashesAtEveryRecord(bench)
      undoesTwice(bench)
    }
  })
}

interface Bench<P, D, Done extends object> {
  readonly operation: Operation<P, D, Done>
  readonly makeWorld: () => Promise<OperationWorld<P, D>>
  readonly leavesNothing: boolean
  readonly isFinal: boolean
  /** The world after success, once it was seen. */
  readonly afterSuccess: Map<'seen', unknown>
  /** At which a process died, and all was well. */
  readonly moments: Set<string>
}

let runs = 0

/**
 * What surrounds a run in a worker. Operations name what they make after their task, so each run is one of its own: two
 * within a second must not have one name.
 */
function around(): Around {
  runs += 1
  const [node, user, startTime] = ['localhost', 'root@pam', seconds(systemClock)]
  const names = { node, pid: process.pid, pstart: runs, starttime: startTime, type: 'test', id: '', user }
  return {
    task: { upid: printUpid(names), user, node, startTime },
    // An undo that failed is tried again; nobody has to wait for that here.
    clock: { ...systemClock, sleep: async () => {} },
  }
}

function succeeds<P, D, Done extends object>(bench: Bench<P, D, Done>): void {
  const { operation, makeWorld, leavesNothing } = bench
  test(`success ${leavesNothing ? 'leaves nothing behind' : 'changes the world'}`, async () => {
    await using world = await makeWorld()
    const before = await world.look()
    const journal = memoryJournal()
    const done = await perform(operation, world.params, world.deps, journal, around())
    const after = await world.look()
    if (leavesNothing) assert.deepEqual(after, before)
    else assert.notDeepEqual(after, before, '`look` sees nothing of what the operation does')
    bench.afterSuccess.set('seen', after)
    // A recovery reads results from the journal: they must mean the same there.
    const remembered: unknown = JSON.parse(JSON.stringify(stateOf(journal.records).done))
    assert.deepEqual(remembered, JSON.parse(JSON.stringify(done)))
    assert.deepEqual(withoutAbsent(done), remembered, 'a result is not plain JSON')
  })
}

/** Of a run that did not succeed. */
async function isAsBefore<P, D, Done extends object>(
  { isFinal, afterSuccess }: Bench<P, D, Done>,
  world: OperationWorld<P, D>,
  before: unknown,
  where = '',
): Promise<void> {
  const now = await world.look()
  if (isFinal && isDeepStrictEqual(now, afterSuccess.get('seen'))) return
  // With `where` among the values the message shows both it and the difference.
  assert.deepEqual({ where, world: now }, { where, world: before })
}

function failsAt<P, D, Done extends object>(bench: Bench<P, D, Done>, step: NamedStep, when: 'before' | 'after'): void {
  test(`a failure ${when} '${step.name}' did its work leaves nothing behind`, async () => {
    await using world = await bench.makeWorld()
    const before = await world.look()
    const broken = withStep(bench.operation, step.name, { do: breaking(step.do, when) })
    await assert.rejects(perform(broken, world.params, world.deps, memoryJournal(), around()), Injected)
    await isAsBefore(bench, world, before)
  })
}

function undoFailsOnce<P, D, Done extends object>(bench: Bench<P, D, Done>, step: NamedStep): void {
  const { operation, makeWorld } = bench
  test(`an undo of '${step.name}' that fails once is tried again`, async () => {
    for (const when of ['before', 'after'] as const) {
      await using world = await makeWorld()
      const before = await world.look()
      let failures = 0
      const onlyOnce = async (context: StepContextOfAny) => {
        if (failures > 0) return void (await step.undo?.(context))
        failures += 1
        if (when === 'after') await step.undo?.(context)
        throw new Injected()
      }
      const broken = failingAtTheEnd(withStep(operation, step.name, { undo: onlyOnce }))
      await assert.rejects(perform(broken, world.params, world.deps, memoryJournal(), around()), Injected)
      assert.equal(failures, 1)
      await isAsBefore(bench, world, before)
    }
  })
}

function interruptedBeforeEachStep<P, D, Done extends object>(bench: Bench<P, D, Done>): void {
  const { operation, makeWorld } = bench
  test('an abort before any step leaves nothing behind', async () => {
    for (const step of operation.steps) {
      await using world = await makeWorld()
      const before = await world.look()
      const abort = new AbortController()
      const journal = memoryJournal()
      const noticing: Journal = {
        records: journal.records,
        add: async (record) => {
          await journal.add(record)
          if (record.event === 'begin' && record.step === step.name) abort.abort()
        },
      }
      // The step under way may hear the signal or finish; the one after it must not begin.
      const run = perform(failingAtTheEnd(operation), world.params, world.deps, noticing, {
        ...around(),
        signal: abort.signal,
      })
      await assert.rejects(run, /^Fault: interrupted by signal$/)
      await isAsBefore(bench, world, before)
    }
  })
}

function crashesAtEveryRecord<P, D, Done extends object>(bench: Bench<P, D, Done>): void {
  const { operation, makeWorld } = bench
  const crashIn = async (broken: Operation<P, D, Done>) => {
    // The run without a crash says how many records there are and what success looks like.
    const whole = memoryJournal()
    await using reference = await makeWorld()
    await perform(broken, reference.params, reference.deps, whole, around()).catch(onlyInjected)
    const after = await reference.look()
    for (const moment of momentsOf(operation, whole.records)) {
      if (bench.moments.has(moment.key)) continue
      const { index, isOnDisk } = moment
      await using world = await makeWorld()
      const before = await world.look()
      const task = around()
      const onDisk = await untilCrash(broken, world, task, moment)
      const outcome = await unwind(broken, world.params, world.deps, memoryJournal(onDisk), task)
      const where = `crash ${isOnDisk ? 'after' : 'before'} record ${index} (${JSON.stringify(whole.records[index])})`
      if (outcome === 'succeeded') assert.deepEqual({ where, world: await world.look() }, { where, world: after })
      else await isAsBefore(bench, world, before, where)
      assert.equal(outcome === 'succeeded', stateOf(onDisk).stage.is === 'succeeded', where)
      bench.moments.add(moment.key)
    }
  }
  test('a crash at any moment on the way to success is undone or finished', () => crashIn(operation))
  test('a crash at any moment of undoing is undone', () => crashIn(failingAtTheEnd(operation)))
}

interface Moment {
  readonly index: number
  readonly isOnDisk: boolean
  /** The same for two moments after which a recovery reads the same in the same world. */
  readonly key: string
}

/**
 * Before and after every record of a journal. Most of them are one with another: nothing happens between a record that
 * says what was done and the next one, and before its last step a run that fails is like one that does not.
 */
function momentsOf({ steps }: Operation<never, never, never>, records: readonly JournalRecord[]): readonly Moment[] {
  const canUndo = new Set(steps.flatMap(({ name, undo }) => (undo ? [name] : [])))
  return records.flatMap((_, index) => {
    const world = records.slice(0, index + 1).flatMap((one) => {
      const isAct = one.event === 'done' || (one.event === 'undone' && canUndo.has(one.step))
      return isAct ? [[one.event, one.step]] : []
    })
    return [false, true].map((isOnDisk) => {
      const { stage, toUndo, done } = stateOf(records.slice(0, isOnDisk ? index + 1 : index))
      const read = [stage.is, toUndo.filter((name) => canUndo.has(name)), Object.keys(done)]
      return { index, isOnDisk, key: JSON.stringify([read, world]) }
    })
  })
}

/** Runs until a record is (or is not yet) on disk, and then no further. Returns what is on disk. */
async function untilCrash<P, D, Done extends object>(
  operation: Operation<P, D, Done>,
  { params, deps }: OperationWorld<P, D>,
  task: Around,
  { index, isOnDisk }: { readonly index: number; readonly isOnDisk: boolean },
): Promise<readonly JournalRecord[]> {
  const disk = memoryJournal()
  const crash = Promise.withResolvers<void>()
  const dying: Journal = {
    records: disk.records,
    async add(record) {
      const isLast = disk.records.length === index
      if (!isLast || isOnDisk) await disk.add(record)
      if (!isLast) return
      crash.resolve()
      // A dead process does nothing more: this never resolves, and nothing waits for it.
      await new Promise<void>(() => {})
    },
  }
  await Promise.race([crash.promise, perform(operation, params, deps, dying, task).then(neverReached, onlyInjected)])
  return [...disk.records]
}

function undoesTwice<P, D, Done extends object>(bench: Bench<P, D, Done>): void {
  const { operation, makeWorld } = bench
  test('an undo may run twice, and for a step that never happened', async () => {
    await using world = await makeWorld()
    const before = await world.look()
    const task = around()
    const began = operation.steps.map(({ name }): JournalRecord => ({ event: 'begin', step: name }))
    await unwind(operation, world.params, world.deps, memoryJournal(began), task)
    assert.deepEqual(await world.look(), before)
    const journal = memoryJournal()
    const failed = perform(failingAtTheEnd(operation), world.params, world.deps, journal, task)
    await assert.rejects(failed, Injected)
    const undoneForgotten = journal.records.filter(({ event }) => event !== 'undone')
    await unwind(failingAtTheEnd(operation), world.params, world.deps, memoryJournal(undoneForgotten), task)
    await isAsBefore(bench, world, before)
  })
}

type StepContextOfAny = Parameters<NamedStep['do']>[0]

function breaking(act: NamedStep['do'], when: 'before' | 'after'): NamedStep['do'] {
  return async (context: StepContextOfAny) => {
    if (when === 'after') await act(context)
    throw new Injected()
  }
}

function withStep<P, D, Done extends object>(
  operation: Operation<P, D, Done>,
  name: string,
  change: Partial<NamedStep>,
): Operation<P, D, Done> {
  const steps = operation.steps.map((step) => (step.name === name ? { ...step, ...change } : step))
  return new Operation<P, D, Done>(operation.name, operation.facts, steps)
}

/** The same operation with one more step, which fails. */
function failingAtTheEnd<P, D, Done extends object>(operation: Operation<P, D, Done>): Operation<P, D, Done> {
  const last: NamedStep = {
    name: 'injected failure',
    do: () => {
      throw new Injected('injected')
    },
    always: false,
  }
  return new Operation<P, D, Done>(operation.name, operation.facts, [...operation.steps, last])
}

function onlyInjected(error: unknown): void {
  if (!(error instanceof Injected)) throw error
}

function neverReached(): void {
  throw new Error('the run went past its crash')
}

/** Absent and `undefined` are the same to JSON. */
function withoutAbsent(value: object): object {
  return Object.fromEntries(Object.entries(value).filter(([, part]) => part !== undefined))
}
