/** Runs a plan on the node, follows it, asks what it asks, and writes into the document what is signed. */
import { Fault, isFault } from '#base/fault.ts'
import type { Plan, PlanStep } from '#plans/plan.ts'
import { isOver, type RunState } from '#plans/run-state.ts'
import { described } from '#plans/act.ts'
import { filledText, namesIn } from '#plans/template.ts'
import { valuesFor } from '#plans/variable.ts'
import type { Value } from '#plans/value.ts'
import { parseFor, type Parsed } from '../arguments.ts'
import type { Connection } from '../connection.ts'
import { exitCodes } from '../exit.ts'
import type { Outside } from '../local.ts'
import { printed } from '../print.ts'
import { type Terminal, typed } from '../terminal.ts'
import { type Language, say } from '../text.ts'
import { waitForTask } from '../wait.ts'
import { demandRunnable, newestRun, readPlan, writeOutcome } from './file.ts'
import { red } from './looking.ts'
import { givenSecrets } from './secret.ts'

type Mode = 'run' | 'resume' | 'undo'

const option = (type: 'string' | 'boolean', multiple = false) =>
  ({ type, required: false, multiple, isSecret: false }) as const
const options = {
  'dry-run': option('boolean'),
  in: option('string'),
  var: option('string', true),
  'grant-destroy': option('boolean'),
  answer: option('string', true),
  skip: option('string', true),
  waive: option('string', true),
  continue: option('string', true),
  reason: option('string'),
}

export async function runPlanCommand(
  mode: Mode,
  args: readonly string[],
  terminal: Terminal,
  outside: Outside,
): Promise<number> {
  const parsed = parseFor({ positional: [], options }, args)
  const [path, ...extra] = parsed.positionals
  if (path === undefined || extra.length > 0) throw new Fault('invalid', `name one plan: hako plan ${mode} <file>`)
  const { plan } = await readPlan(path)
  demandRunnable(plan, path)
  const given = await givenSecrets(plan, listOf(parsed, 'var'), outside.env)
  if (parsed.params['dry-run'] === '1') return dryRun(plan, given, parsed, terminal)
  const connection = await outside.connect()
  const begun = await newestRun(connection, plan.id)
  // What a run found that nobody was there to write down.
  const isNews = begun !== undefined && (await writeOutcome(path, begun, connection))
  if (mode === 'resume' && isNews && isOver(begun)) return finished(begun, parsed, terminal)
  const values = mode === 'run' ? valuesOf(plan, given) : new Map(Object.entries(begun?.values ?? {}))
  const request: Record<string, string | string[]> = {
    plan: plan.id,
    mode,
    in: textOf(parsed, 'in') ?? (mode === 'run' ? 'lab' : (begun?.where ?? 'lab')),
    var: Object.entries(given.values).map(([name, value]) => `${name}=${value}`),
    secret: Object.entries(given.secrets).map(([name, value]) => `${name}=${value}`),
    confirm: await confirmed(openSteps(mode, plan, begun), values, parsed, terminal.language),
    'grant-destroy': parsed.params['grant-destroy'] === '1' ? '1' : '0',
    answer: listOf(parsed, 'answer'),
    decision: decisionsOf(parsed),
  }
  return attempts(path, request, { parsed, connection, terminal })
}

/** Those that are still to be done. */
function openSteps(mode: Mode, { steps }: Plan, begun: RunState | undefined): readonly PlanStep[] {
  if (mode === 'undo') return []
  return mode === 'run' ? steps : steps.filter(({ id }) => begun?.steps[id]?.result !== 'proven')
}

interface Facts {
  readonly parsed: Parsed
  readonly connection: Connection
  readonly terminal: Terminal
}

/** One attempt, and another for each question a person is there to answer. */
async function attempts(path: string, request: Record<string, string | string[]>, facts: Facts): Promise<number> {
  const { parsed, connection, terminal } = facts
  for (let next = request; ;) {
    const { plan } = await readPlan(path)
    const { data: upid } = await connection.call('POST', '/hako/plans', { ...next, document: plan.document.text })
    const failure = await followed(String(upid as string), facts)
    const run = await newestRun(connection, plan.id)
    if (run) await writeOutcome(path, run, connection)
    if (failure !== undefined) throw failure
    const [id, asked] = Object.entries(run?.steps ?? {}).find(([, { result }]) => result === 'waiting') ?? []
    if (run?.outcome !== 'waiting' || id === undefined) return finished(run, parsed, terminal)
    const { act } = plan.steps.find((step) => step.id === id) ?? {}
    const question = `${asked?.found ?? ''} ${act?.kind === 'ask' && act.choices ? `(${act.choices.join(', ')}) ` : ''}`
    const answer = act?.kind === 'ask' ? await typedOf(act.choices, question) : undefined
    if (answer === undefined) {
      const remedy =
        act?.kind === 'ask'
          ? `Answer it: hako plan resume ${path} --answer ${id}=${act.choices?.join('|') ?? 'TEXT'}. Or decide: --skip ${id} --reason TEXT.`
          : `Decide, and say why: hako plan resume ${path} --continue ${id} --reason TEXT. Or --skip, or --waive.`
      throw new Fault('conflict', `'${id}' waits: ${asked?.found ?? ''}`, { remedy })
    }
    next = { ...next, mode: 'resume', answer: [...listOf(parsed, 'answer'), `${id}=${answer}`], decision: [] }
  }
}

/** @returns why the task failed, after its log was shown */
async function followed(upid: string, { parsed, connection, terminal }: Facts): Promise<unknown> {
  const { quiet, timeoutSeconds, output } = parsed.global
  const { language, show, signal } = terminal
  try {
    await waitForTask({ connection, upid, language, quiet: quiet || output !== 'table', timeoutSeconds, show, signal })
    return undefined
  } catch (error) {
    // Nobody waits any more, and it goes on: it is written down by whoever comes next.
    if (isFault(error, 'aborted') || isFault(error, 'timeout')) throw error
    return error
  }
}

async function finished(run: RunState | undefined, { global }: Parsed, terminal: Terminal): Promise<number> {
  const { language, width } = terminal
  if (global.output !== 'table') terminal.out(await printed(run, { format: global.output, id: 'run', language, width }))
  return run?.outcome === 'proven' || run?.outcome === 'undone' ? exitCodes.ok : exitCodes.unproven
}

function valuesOf(
  plan: Plan,
  { values, secrets }: { values: Record<string, string>; secrets: Record<string, string> },
) {
  return valuesFor(plan.settings.variables, values, Object.keys(secrets))
}

/** Every object a destroy step names is typed, as one list after --confirm or one after the other. */
async function confirmed(
  steps: readonly PlanStep[],
  values: ReadonlyMap<string, Value>,
  { global }: Parsed,
  language: Language,
): Promise<string[]> {
  const given = (global.confirm ?? '').split(',').filter(Boolean)
  for (const { destroys } of steps) {
    if (destroys === undefined || !namesIn(destroys).names.every((name) => values.has(name))) continue
    const object = filledText(destroys, values)
    if (given.includes(object)) continue
    const answer = await typed(`${red(say(language, 'confirm', object), true)} ${say(language, 'typeName')} `)
    if (answer !== object) {
      throw new Fault('invalid', `${object} is destroyed only when its name is typed`, {
        remedy: `Repeat it with --confirm ${object}.`,
      })
    }
    given.push(object)
  }
  return given
}

/** Asks again for what is no answer. */
async function typedOf(choices: readonly string[] | undefined, question: string): Promise<string | undefined> {
  for (;;) {
    const answer = await typed(question)
    if (answer === undefined || !choices || choices.includes(answer)) return answer
  }
}

function decisionsOf(parsed: Parsed): string[] {
  const reason = textOf(parsed, 'reason')
  const decisions = (['skip', 'waive', 'continue'] as const).flatMap((kind) =>
    listOf(parsed, kind).map((step) => `${step}=${kind}: ${reason ?? ''}`),
  )
  if (decisions.length > 0 && (reason ?? '').trim() === '')
    throw new Fault('invalid', 'a decision needs its reason: --reason "…"')
  return decisions
}

/** What would be called, without calling anything. */
async function dryRun(
  plan: Plan,
  given: { values: Record<string, string>; secrets: Record<string, string> },
  { global }: Parsed,
  terminal: Terminal,
): Promise<number> {
  const values = new Map<string, Value>([
    ['node', '<node>'],
    ['run', '<run>'],
    ...valuesOf(plan, given),
    ...Object.keys(given.secrets).map((name): [string, Value] => [name, '********']),
    ...plan.steps.flatMap(({ id, record }) =>
      [...record.map(({ name }) => name), 'answer'].map((name): [string, Value] => [
        `steps.${id}.${name}`,
        `<${id}.${name}>`,
      ]),
    ),
  ])
  const rows = plan.steps.map(({ id, class: kind, act, makes, destroys, isScratch, undo }) => ({
    step: id,
    class: kind === 'destroy' ? red(kind, terminal.width !== undefined && global.output === 'table') : kind,
    does: described(act, values),
    makes: makes === undefined ? '' : filledText(makes, values),
    destroys: destroys === undefined ? '' : filledText(destroys, values),
    undone: isScratch ? 'end' : undo.length > 0 ? 'undo' : '',
  }))
  const { language, width } = terminal
  const columns = ['step', 'class', 'does', 'makes', 'destroys', 'undone']
  terminal.out(await printed(rows, { format: global.output, columns, id: 'step', language, width }))
  if (global.output === 'table') terminal.show(say(language, 'nothingDone'))
  return exitCodes.ok
}

function textOf({ params }: Parsed, name: string): string | undefined {
  const value = params[name]
  return typeof value === 'string' ? value : undefined
}

function listOf({ params }: Parsed, name: string): string[] {
  return [params[name] ?? []].flat()
}
