/** Looks at plans: what is wrong with them, how they stand. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { lint } from '#plans/lint.ts'
import type { BoxFacts, BoxStatus, PlanStanding } from '#plans/status.ts'
import { parseFor } from '../arguments.ts'
import type { Connection } from '../connection.ts'
import { exitCodes } from '../exit.ts'
import type { Outside } from '../local.ts'
import { printed } from '../print.ts'
import type { Terminal } from '../terminal.ts'
import { translation } from '../translation.ts'
import { readPlan, rootOf, shown, standing } from './file.ts'

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
  for (const path of positionals) {
    const { plan } = await readPlan(path)
    const { status, boxes } = await standingHere(plan, outside, terminal)
    const count = (...wanted: readonly BoxStatus[]) => boxes.filter((box) => wanted.includes(box.status)).length
    const others = {
      stale: count('stale'),
      claimed: count('claimed', 'skipped', 'waived'),
      open: count('open', 'failed'),
    }
    rows.push({ file: shown(path), status, proven: count('proven'), ...others, boxes: boxes.length })
  }
  const columns = ['file', 'status', 'proven', 'stale', 'claimed', 'open']
  terminal.out(await printed(rows, { format: global.output, columns, id: 'status', language, width }))
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
