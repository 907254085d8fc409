/** One step, tried until it holds or has had its tries. */
import { Fault, isFault, messageOf, wholeMessageOf } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { type ActFacts, described, type Done, perform, taskEnd } from './act.ts'
import { unmet, valueAt } from './expect.ts'
import { demandDeclared, type Grants } from './grant.ts'
import type { PlanStep } from './plan.ts'
import { isoOf, type RunState, type StepState } from './run-state.ts'
import { fill, filledText, textOf, type Values } from './template.ts'
import type { PlanWorld } from './world.ts'
import type { Value } from './value.ts'

export interface AttemptFacts {
  readonly world: PlanWorld
  readonly secrets: ReadonlyMap<string, string>
  readonly values: Values
  readonly state: RunState
  readonly grants: Grants
  /** To a step that asks. */
  readonly answer: string | undefined
  /** Who gives it. */
  readonly by: string
  /** A task an earlier attempt started for this step: it is waited for, and nothing is called again. */
  readonly joined: string | undefined
  /** What the step is for is so already: nothing is done. */
  readonly isAlready: boolean
  readonly onCall: (call: string) => Promise<void>
  readonly onTask: (upid: string) => Promise<void>
}

const pauseMs = 500

/** @returns the step as proven, or as waiting for an answer. @throws Fault of what does not hold */
export async function attempted(step: PlanStep, begun: StepState, facts: AttemptFacts): Promise<StepState> {
  const { world } = facts
  const startedMs = world.clock.monotonic()
  const { act } = step
  if (act.kind === 'ask') return answered(step, begun, facts)
  world.log(`${begun.began} ${step.id} (${step.class}): ${described(act, shownValues(facts))}`)
  for (let tries = 1; ; tries += 1) {
    try {
      const done = await once(step, act, facts, startedMs + step.timeoutSeconds * 1000)
      const tookMs = Math.round(world.clock.monotonic() - startedMs)
      return { ...begun, result: 'proven', tries, tookMs, ended: isoAt(world), ...done }
    } catch (error) {
      const isFinal = isFault(error, 'denied') || isFault(error, 'invalid') || world.signal.aborted
      if (isFinal || tries > step.retries) throw error
      world.log(`${step.id}: try ${tries} of ${step.retries + 1}: ${world.hide(messageOf(error))}`)
      await world.clock.sleep(pauseMs * tries, world.signal)
    }
  }
}

const isoAt = ({ clock }: PlanWorld) => isoOf(clock.now())

type Seen = Pick<StepState, 'call' | 'found'> & {
  readonly recorded?: Readonly<Record<string, Value>>
  readonly task?: string
}

async function once(
  step: PlanStep,
  act: Exclude<PlanStep['act'], { kind: 'ask' }>,
  facts: AttemptFacts,
  deadline: number,
): Promise<Seen> {
  const { world, values, joined } = facts
  let task = joined
  const actFacts: ActFacts = {
    world,
    values,
    secrets: facts.secrets,
    deadline,
    beforeCall: (call) => demandDeclared(step, call, values),
    onTask: async (upid) => {
      task = upid
      await facts.onTask(upid)
    },
  }
  const done = await doneOnce(step, act, facts, actFacts)
  const seen = step.look ? (await perform(step.look, { ...actFacts, onTask: async () => {} })).reply : done.reply
  // What was not done, or failed as it should, has no reply to be judged.
  const isJudged = step.look !== undefined || (!facts.isAlready && step.fails === undefined)
  const problems = isJudged ? unmet(step.expect, seen, values) : []
  if (problems.length > 0) throw new Fault('unproven', problems.join('; '))
  const recorded = isJudged ? recordedOf(step, seen, facts) : {}
  return {
    call: done.call,
    found: isJudged ? foundIn(step, done.reply, facts) : facts.world.hide(textOf(done.reply)).slice(0, 500),
    ...(task === undefined ? {} : { task }),
    ...(Object.keys(recorded).length > 0 ? { recorded } : {}),
  }
}

async function doneOnce(
  step: PlanStep,
  act: Exclude<PlanStep['act'], { kind: 'ask' }>,
  facts: AttemptFacts,
  actFacts: ActFacts,
): Promise<Done> {
  const { world, joined } = facts
  const call = described(act, shownValues(facts)).slice(0, 2_000)
  if (facts.isAlready) return { reply: 'it was so already', call: 'nothing' }
  await facts.onCall(call)
  if (joined !== undefined) return { reply: await taskEnd(joined, actFacts), call }
  if (step.fails === undefined) return perform(act, actFacts)
  try {
    await perform(act, actFacts)
  } catch (error) {
    const said = wholeMessageOf(error)
    if (world.signal.aborted || !said.includes(step.fails)) throw error
    return { reply: `it failed, as it should: ${said}`, call }
  }
  throw new Fault('unproven', `it was to fail with '${step.fails}', and did not`)
}

/** Whether what the step is for is so already. @throws Fault of a question that could not be asked */
export async function isAlready(
  step: PlanStep,
  { world, values }: Pick<AttemptFacts, 'world' | 'values'>,
): Promise<boolean> {
  const { unless } = step
  if (!unless) return false
  const deadline = world.clock.monotonic() + step.timeoutSeconds * 1000
  const facts: ActFacts = { world, values, secrets: new Map(), deadline, beforeCall: () => {}, onTask: async () => {} }
  try {
    return unmet(unless.for, (await perform(unless.ask, facts)).reply, values).length === 0
  } catch (error) {
    if (isFault(error, 'missing') || /does not exist|no such/i.test(messageOf(error))) return false
    throw error
  }
}

/** Secrets as stars. */
function shownValues({ values, secrets }: AttemptFacts): Values {
  return new Map<string, Value>([...values, ...[...secrets.keys()].map((name): [string, Value] => [name, '********'])])
}

/** In a sentence, and short: the whole reply is what the API has, not what the record needs. */
function foundIn(step: PlanStep, reply: Value, { world, values }: AttemptFacts): string {
  const held = step.expect.map(({ path, matcher, wanted }) => {
    const place = path === '' ? 'the reply' : filledText(path, values)
    return `${place} ${matcher} ${textOf(fill(wanted, values))}`
  })
  const said = held.length > 0 ? held.join(', ') : textOf(reply)
  return world.hide(said).slice(0, 500)
}

function recordedOf(step: PlanStep, reply: Value, { values, world }: AttemptFacts): Record<string, Value> {
  return Object.fromEntries(
    step.record.map(({ name, path }) => {
      const value = valueAt(reply, filledText(path, values))
      if (value === undefined) throw new Fault('unproven', `there is nothing to record as '${name}' at '${path}'`)
      const text = JSON.stringify(value)
      if (text.length > limits.plans.valueBytes) {
        throw new Fault(
          'too-large',
          `what is to be recorded as '${name}' is longer than ${limits.plans.valueBytes} bytes`,
        )
      }
      return [name, JSON.parse(world.hide(text)) as Value]
    }),
  )
}

function answered(step: PlanStep, begun: StepState, { world, answer, by, values }: AttemptFacts): StepState {
  const { act } = step
  if (act.kind !== 'ask') throw new Error('only a question is answered')
  const question = filledText(act.question, values)
  if (answer === undefined) {
    world.log(`${begun.began} ${step.id} asks: ${question}`)
    return { ...begun, result: 'waiting', tries: 1, found: question }
  }
  if (act.choices && !act.choices.includes(answer)) {
    throw new Fault('invalid', `'${answer}' is no answer to '${question}': ${act.choices.join(', ')}`)
  }
  const recorded = { answer: answer.slice(0, limits.plans.valueBytes) }
  const found = `${question} ${answer}`.slice(0, 500)
  return { ...begun, result: 'proven', tries: 1, tookMs: 0, ended: isoAt(world), found, recorded, by }
}

/** Twice the usual and some seconds more is worth a word; less is weather. */
export function slowness(tookMs: number, earlier: readonly number[]): string | undefined {
  const usual = earlier.toSorted((a, b) => a - b)[Math.floor(earlier.length / 2)]
  if (usual === undefined || tookMs < usual * 2 + 5_000) return undefined
  return `it took ${(tookMs / 1000).toFixed(1)} s, usually ${(usual / 1000).toFixed(1)} s`
}
