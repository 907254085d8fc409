/** Lets a plan run again by itself in the lab. */
import { Fault } from '#base/fault.ts'
import { parseFor } from '../arguments.ts'
import { exitCodes } from '../exit.ts'
import type { Outside } from '../local.ts'
import type { Terminal } from '../terminal.ts'
import { readPlan } from './file.ts'

const option = (multiple = false) => ({ type: 'string', required: false, multiple, isSecret: false }) as const

export async function schedulePlan(args: readonly string[], terminal: Terminal, outside: Outside): Promise<number> {
  const options = { at: option(), id: option(), var: option(true) }
  const { positionals, params, global } = parseFor({ positional: [], options }, args)
  const [path, ...extra] = positionals
  const { at, id } = params
  if (path === undefined || extra.length > 0 || typeof at !== 'string')
    throw new Fault('invalid', 'name one plan and a time: hako plan schedule <file> --at TIME')
  const { plan } = await readPlan(path)
  const name = typeof id === 'string' ? id : plan.slug
  const confirm = (global.confirm ?? '').split(',').filter(Boolean)
  const request = {
    id: name,
    schedule: at,
    plan: plan.id,
    document: plan.document.text,
    var: params.var ?? [],
    confirm,
  }
  await (await outside.connect()).call('POST', '/hako/plan-jobs', request, { signal: terminal.signal })
  terminal.out(name)
  return exitCodes.ok
}
