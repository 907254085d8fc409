/** Looks at plans: what is wrong with them, how they stand. */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { lint } from '#plans/lint.ts'
import type { BoxFacts, BoxStatus, PlanStanding } from '#plans/status.ts'
import { parseFor } from '../arguments.ts'
import type { Connection } from '../connection.ts'
import { exitCodes } from '../exit.ts'
import type { Outside } from '../local.ts'
import { printed } from '../print.ts'
import type { Terminal } from '../terminal.ts'
import { translation } from '../translation.ts'
import { newestRun, readPlan, rootOf, shown, standing, writeOutcome } from './file.ts'
import { schedules } from './scheduling.ts'

export async function lintPlans(args: readonly string[], terminal: Terminal): Promise<number> {
  const { positionals, global } = parseFor({ positional: [], options: {} }, args)
  if (positionals.length === 0) throw new Fault('invalid', 'name a plan: hako plan lint <file>…')
  const { language, width } = terminal
  const translate = await translation(language)
  const rows = []
  for (const path of positionals) {
    const file = await readPlan(path)
    const root = rootOf(file, (folder) => existsSync(join(folder, '.git')))
    const { status } = await standing(file.plan, undefined)
    const found = lint(file.plan, { language, translate, status, isThere: (name) => existsSync(join(root, name)) })
    rows.push(...found.map((one) => ({ file: shown(path), ...one })))
  }
  if (global.output !== 'table' || width !== undefined) {
    if (rows.length > 0 || global.output !== 'table')
      terminal.out(
        await printed(rows, {
          format: global.output,
          columns: ['file', 'line', 'rule', 'text', 'mend'],
          id: 'line',
          language,
          width,
        }),
      )
  } else for (const { file, line, rule, text, mend } of rows) terminal.out(`${file}:${line}: ${rule}: ${text} ${mend}`)
  return rows.length === 0 ? exitCodes.ok : exitCodes.failed
}

export async function planStatus(args: readonly string[], terminal: Terminal, outside: Outside): Promise<number> {
  const { positionals, global } = parseFor({ positional: [], options: {} }, args)
  if (positionals.length === 0) throw new Fault('invalid', 'name a plan: hako plan status <file>…')
  const { language, width } = terminal
  const rows = []
  for (const path of positionals)
    rows.push(rowOf(path, await standingHere((await readPlan(path)).plan, outside, terminal)))
  const columns = ['file', 'status', 'proven', 'stale', 'claimed', 'open', 'age-days']
  terminal.out(await printed(rows, { format: global.output, columns, id: 'status', language, width }))
  return exitCodes.ok
}

/** Every plan below folders, with when it runs next by itself. What is no plan is passed over. */
export async function listPlans(args: readonly string[], terminal: Terminal, outside: Outside): Promise<number> {
  const { positionals, global } = parseFor({ positional: [], options: {} }, args)
  const folders = positionals.length > 0 ? positionals : [existsSync('plans') ? 'plans' : '.']
  const scheduled = await outside
    .connect()
    .then(schedules)
    .catch((fault: unknown) => {
      if (isFault(fault, 'unavailable')) return []
      throw fault
    })
  const rows = []
  for (const path of (await Promise.all(folders.map(filesIn))).flat()) {
    const { plan } = await readPlan(path)
    if (plan.slug === '' || plan.steps.length === 0) continue
    const row = rowOf(path, await standingHere(plan, outside, terminal))
    const next = scheduled.find((one) => one.plan === plan.id)?.['next-run']
    rows.push({
      ...row,
      plan: plan.id,
      title: plan.document.title,
      ...(next === undefined ? {} : { 'next-run': next }),
    })
  }
  const { language, width } = terminal
  const columns = ['file', 'status', 'proven', 'boxes', 'age-days', 'next-run', 'title']
  terminal.out(await printed(rows, { format: global.output, columns, id: 'plan', language, width }))
  return exitCodes.ok
}

async function filesIn(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch((cause: unknown) => {
    if (codeOf(cause) === 'ENOTDIR') return undefined
    throw asFileFault(cause, path)
  })
  if (!entries) return [path]
  const found = entries.filter((entry) => entry.isFile() && entry.name.endsWith('.md'))
  return found.map(({ parentPath, name }) => join(parentPath, name)).toSorted()
}

const dayMs = 24 * 3600 * 1000

/** How many boxes stand how, and how old the oldest proof is. */
function rowOf(path: string, { status, boxes }: PlanStanding) {
  const count = (...wanted: readonly BoxStatus[]) => boxes.filter((box) => wanted.includes(box.status)).length
  const times = boxes.flatMap((box) => (['proven', 'stale'].includes(box.status) && box.at ? [Date.parse(box.at)] : []))
  const age = times.length === 0 ? undefined : Math.floor((systemClock.now() - Math.min(...times)) / dayMs)
  return {
    file: shown(path),
    status,
    proven: count('proven'),
    stale: count('stale'),
    claimed: count('claimed', 'skipped', 'waived'),
    open: count('open', 'failed'),
    boxes: boxes.length,
    ...(age === undefined ? {} : { 'age-days': age }),
  }
}

/** Writes into plans what runs have found meanwhile, such as those that are scheduled. */
export async function updatePlans(args: readonly string[], terminal: Terminal, outside: Outside): Promise<number> {
  const { positionals } = parseFor({ positional: [], options: {} }, args)
  if (positionals.length === 0) throw new Fault('invalid', 'name a plan: hako plan update <file>…')
  const connection = await outside.connect()
  for (const path of positionals) {
    const { plan } = await readPlan(path)
    const run = plan.id === '' ? undefined : await newestRun(connection, plan.id)
    if (run && (await writeOutcome(path, run, connection))) terminal.out(shown(path))
  }
  return exitCodes.ok
}

export async function showPlan(args: readonly string[], terminal: Terminal, outside: Outside): Promise<number> {
  const { positionals, global } = parseFor({ positional: [], options: {} }, args)
  const [path, ...extra] = positionals
  if (path === undefined || extra.length > 0) throw new Fault('invalid', 'name one plan: hako plan show <file>')
  const { plan } = await readPlan(path)
  const found = await standingHere(plan, outside, terminal)
  const { language, width } = terminal
  if (global.output !== 'table') {
    terminal.out(
      await printed({ id: plan.id, title: plan.document.title, ...found }, { format: global.output, language, width }),
    )
    return exitCodes.ok
  }
  terminal.out(`${plan.document.title}\n${plan.id}: ${found.status}\n`)
  const translate = await translation(language)
  for (const { why, ...box } of found.boxes) {
    terminal.out(lineOf({ ...box, ...(why === undefined ? {} : { why: translate(why) }) }, width !== undefined))
  }
  return exitCodes.ok
}

const signs: Readonly<Record<BoxStatus, string>> = {
  open: '[ ]',
  claimed: '[?]',
  proven: '[x]',
  stale: '[~]',
  failed: '[!]',
  skipped: '[-]',
  waived: '[-]',
}

/** What destroys is red wherever a person looks. */
function lineOf({ status, words, step, class: kind, why, at }: BoxFacts, isColoured: boolean): string {
  const name = step === undefined ? '' : `  ${step}${kind === 'read' ? '' : ` (${kind})`}`
  const facts = [status, at, why].filter((one) => one !== undefined).join(', ')
  const text = `${signs[status]} ${words.split('\n')[0]}${name}  ${facts}`
  return kind === 'destroy' ? red(text, isColoured) : text
}

export function red(text: string, isColoured: boolean): string {
  return isColoured ? `\u001B[31m${text}\u001B[39m` : text
}

/** Without a node a plan can be looked at, too: nothing of it is proven then. */
async function standingHere(
  plan: Parameters<typeof standing>[0],
  outside: Outside,
  terminal: Terminal,
): Promise<PlanStanding> {
  const connection: Connection = await outside.connect()
  try {
    return await standing(plan, connection)
  } catch (error) {
    if (!isFault(error, 'unavailable')) throw error
    terminal.show(error.message)
    return standing(plan, undefined)
  }
}
