/** Does what a step says, through the API, and gives back a reply to be judged. */
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { unmet } from './expect.ts'
import { pathsOf } from './object.ts'
import type { Act, ApiAct, CommandAct, ValueMap } from './step.ts'
import { fill, filledPath, filledText, textOf, type Values } from './template.ts'
import type { Call, PlanWorld } from './world.ts'
import { isMap, type Value } from './value.ts'

export interface ActFacts {
  readonly world: PlanWorld
  /** Without secrets. */
  readonly values: Values
  /** For parameters of calls alone. */
  readonly secrets: ReadonlyMap<string, string>
  /** By the world's monotonic clock. */
  readonly deadline: number
  /** Told before anything is called; may refuse. */
  readonly beforeCall: (call: Call) => void
  /** Told of a task as soon as it has a name. */
  readonly onTask: (upid: string) => Promise<void>
}

export interface Done {
  readonly reply: Value
  /** What was called, without secrets. */
  readonly call: string
}

const [pauseMs, longestPauseMs] = [50, 1_000]

/** @throws Fault of what failed; `timeout`; `invalid` for what cannot be filled in */
export async function perform(act: Exclude<Act, { kind: 'ask' }>, facts: ActFacts): Promise<Done> {
  switch (act.kind) {
    case 'api':
      return called(act, facts)
    case 'hako':
      return commanded(act, facts)
    case 'drill':
      return drilled(act.with, facts)
    case 'probe':
      return probed(act, facts)
    case 'wait':
      return waited(act, facts)
    default:
      return act satisfies never
  }
}

/** What would be called, in words; nothing is. */
export function described(act: Act, values: Values): string {
  switch (act.kind) {
    case 'api': {
      const parts = Object.entries(act.with).map(([name, value]) => `${name}=${textOf(fill(value, values))}`)
      return [act.method, filledText(act.path, values), ...parts].join(' ')
    }
    case 'hako':
      return `hako ${act.words.map((word) => filledText(word, values)).join(' ')}`
    case 'drill':
      return `drill ${textOf(fill(act.with, values))}`
    case 'probe':
      return `probe ${filledText(textOf(act.guest), values)} ${act.file ?? act.run?.join(' ') ?? ''}`.trimEnd()
    case 'wait':
      return `wait for GET ${filledText(act.until.path, values)}`
    case 'ask':
      return `ask: ${act.question}`
    default:
      return act satisfies never
  }
}

function callOf(act: ApiAct, { values, secrets }: Pick<ActFacts, 'values' | 'secrets'>): Call {
  const params = fill(act.with, new Map<string, Value>([...values, ...secrets]))
  return { method: act.method, path: filledPath(act.path, values), params: isMap(params) ? params : {} }
}

/** With stars for secrets: taking them out of a text afterwards would miss those that are short. */
export function starred({ values, secrets }: Pick<ActFacts, 'values' | 'secrets'>): Values {
  return new Map<string, Value>([...values, ...[...secrets.keys()].map((name): [string, Value] => [name, '********'])])
}

function saidOf(act: Act, facts: ActFacts): string {
  return facts.world.hide(described(act, starred(facts))).slice(0, 2_000)
}

async function called(act: ApiAct, facts: ActFacts): Promise<Done> {
  const call = callOf(act, facts)
  facts.beforeCall(call)
  const reply = await facts.world.call(call, signalOf(facts))
  return { reply: await afterTask(reply, facts), call: saidOf(act, facts) }
}

/** With the name of its evidence, so that a step can record it. */
async function drilled(params: ValueMap, facts: ActFacts): Promise<Done> {
  const act: ApiAct = { kind: 'api', method: 'POST', path: '/hako/drills', with: params }
  const { reply, call } = await called(act, facts)
  const upid = isMap(reply) ? reply.upid : undefined
  const drills = await facts.world.call({ method: 'GET', path: '/hako/drills', params: {} }, signalOf(facts))
  const found = Array.isArray(drills) ? drills.find((one: Value) => isMap(one) && one.upid === upid) : undefined
  return { reply: isMap(found) ? found : reply, call }
}

async function commanded({ words }: CommandAct, facts: ActFacts): Promise<Done> {
  const filled = words.map((word) => filledText(word, facts.values))
  const { call, finish } = await facts.world.command(filled)
  facts.beforeCall(call)
  const reply = await facts.world.call(call, signalOf(facts))
  return { reply: await finish(await afterTask(reply, facts), signalOf(facts)), call: `hako ${filled.join(' ')}` }
}

function signalOf({ world, deadline }: ActFacts): AbortSignal {
  const left = Math.max(1, Math.ceil(deadline - world.clock.monotonic()))
  return AbortSignal.any([world.signal, AbortSignal.timeout(left)])
}

/** A task is waited for; its end is the reply. */
async function afterTask(reply: Value, facts: ActFacts): Promise<Value> {
  if (typeof reply !== 'string' || !reply.startsWith('UPID:')) return reply
  await facts.onTask(reply)
  return taskEnd(reply, facts)
}

/** @throws Fault as the task ended with */
export async function taskEnd(upid: string, facts: Pick<ActFacts, 'world' | 'deadline'>): Promise<Value> {
  const path = `/nodes/${upid.split(':')[1] ?? ''}/tasks/${encodeURIComponent(upid)}/status`
  const status = await until(facts, `end of ${upid}`, async () => {
    const found = await facts.world.call({ method: 'GET', path, params: {} }, facts.world.signal)
    if (isMap(found) && typeof found.phase === 'string') {
      facts.world.progress(found.phase, typeof found.fraction === 'number' ? found.fraction : undefined)
    }
    return isMap(found) && found.status === 'stopped' ? found : undefined
  })
  const ended = textOf(status.exitstatus ?? '')
  if (ended === 'OK' || ended.startsWith('WARNINGS')) return { upid, exitstatus: ended }
  throw new Fault(
    status.kind === 'unproven' ? 'unproven' : 'failed',
    ended === '' ? 'the task did not say how it ended' : ended,
  )
}

/** Asks until there is an answer. @throws Fault `timeout` */
async function until<T>(
  { world, deadline }: Pick<ActFacts, 'world' | 'deadline'>,
  what: string,
  ask: () => Promise<T | undefined>,
): Promise<T> {
  for (let pause = pauseMs; ; pause = Math.min(pause * 1.5, longestPauseMs)) {
    const found = await ask()
    if (found !== undefined) return found
    if (world.clock.monotonic() >= deadline) throw new Fault('timeout', `${what}: not within the time of the step`)
    await world.clock.sleep(pause, world.signal)
  }
}

async function waited(act: Extract<Act, { kind: 'wait' }>, facts: ActFacts): Promise<Done> {
  const { until: asked, for: wanted } = act
  const call = callOf(asked, facts)
  facts.beforeCall(call)
  let last = 'nothing was answered'
  const { world, deadline } = facts
  for (let pause = pauseMs; ; pause = Math.min(pause * 1.5, longestPauseMs)) {
    try {
      const reply = await world.call(call, signalOf(facts))
      const problems = unmet(wanted, reply, facts.values)
      if (problems.length === 0) return { reply, call: saidOf(asked, facts) }
      last = problems.join('; ')
    } catch (error) {
      // What is not there yet is what is waited for; what may not be asked will not come.
      if (!isFault(error) || isFault(error, 'denied') || isFault(error, 'invalid')) throw error
      last = messageOf(error)
    }
    if (world.clock.monotonic() >= deadline) throw new Fault('timeout', `not within the time of the step: ${last}`)
    await world.clock.sleep(pause, world.signal)
  }
}

/** @returns the file as `out`, or what the program said and its `exitcode`; with neither, that somebody answers */
async function probed({ guest, file, run }: Extract<Act, { kind: 'probe' }>, facts: ActFacts): Promise<Done> {
  const { world, values } = facts
  const vmid = textOf(fill(guest, values))
  const kind = await kindOf(vmid, facts)
  const program = (run ?? (file === undefined ? ['true'] : ['cat', file])).map((word) => filledText(word, values))
  const words = [kind === 'qemu' ? 'vm' : 'ct', 'exec', vmid, '--', ...program]
  let last = ''
  for (let pause = 250; ; pause = Math.min(pause * 1.5, 2_000)) {
    try {
      const { call, finish } = await world.command(words)
      facts.beforeCall(call)
      const reply = await finish(await world.call(call, signalOf(facts)), signalOf(facts))
      return { reply, call: `hako ${words.join(' ')}` }
    } catch (error) {
      // A guest that still boots answers later.
      if (!isFault(error, 'unavailable') && !isFault(error, 'timeout') && !isFault(error, 'conflict')) throw error
      last = messageOf(error)
    }
    if (world.clock.monotonic() >= facts.deadline)
      throw new Fault('timeout', `nobody answers in guest ${vmid}: ${last}`)
    await world.clock.sleep(pause, world.signal)
  }
}

async function kindOf(vmid: string, { world }: ActFacts): Promise<'qemu' | 'lxc'> {
  for (const kind of ['qemu', 'lxc'] as const) {
    const path = `/nodes/${encodeURIComponent(world.node)}/${kind}/${encodeURIComponent(vmid)}/status/current`
    if (await isThere(path, world)) return kind
  }
  throw new Fault('missing', `guest '${vmid}' does not exist`)
}

/** Whether an object is there, by its name. A kind nobody can ask for is not. @throws Fault when it may not be asked */
export async function exists(object: string, world: PlanWorld): Promise<boolean> {
  for (const path of pathsOf(object, world.node)) if (await isThere(path, world)) return true
  return false
}

async function isThere(path: string, world: PlanWorld): Promise<boolean> {
  try {
    await world.call({ method: 'GET', path, params: {} }, world.signal)
    return true
  } catch (error) {
    // Clients of old know some of these answers by their text alone.
    if (isFault(error, 'missing') || /does not exist|no such|not exist/i.test(messageOf(error))) return false
    throw error
  }
}
