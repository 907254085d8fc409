/** Lets plans run again by themselves in the lab, and tells whether what runs is what their files say. */
import { resolve } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { documentOf } from '#plans/document.ts'
import { digestOf, planOf } from '#plans/plan.ts'
import { parseFor } from '../arguments.ts'
import type { Connection } from '../connection.ts'
import { exitCodes } from '../exit.ts'
import type { Outside } from '../local.ts'
import { printed } from '../print.ts'
import type { Terminal } from '../terminal.ts'
import { demandRunnable, readPlan, shown } from './file.ts'
import { givenSecrets } from './secret.ts'

const option = (type: 'string' | 'boolean' = 'string', multiple = false) =>
  ({ type, required: false, multiple, isSecret: false }) as const

export interface Schedule {
  readonly id: string
  readonly plan: string
  readonly schedule: string
  readonly owner: string
  readonly file?: string
  readonly 'next-run'?: number
}

export async function schedulePlan(args: readonly string[], terminal: Terminal, outside: Outside): Promise<number> {
  const options = { at: option(), id: option(), var: option('string', true), 'repeat-missed': option('boolean') }
  const { positionals, params, global } = parseFor({ positional: [], options }, args)
  const [path, ...extra] = positionals
  const { at, id } = params
  if (path === undefined || extra.length > 0 || typeof at !== 'string')
    throw new Fault('invalid', 'name one plan and a time: hako plan schedule <file> --at TIME')
  const { plan } = await readPlan(path)
  demandRunnable(plan, path)
  const secret = plan.settings.variables.find(({ type }) => type === 'secret')
  if (secret) throw new Fault('invalid', `the plan needs the secret '${secret.name}', and nobody is there to give it`)
  const question = plan.steps.find(({ act }) => act.kind === 'ask')
  if (question) throw new Fault('invalid', `step '${question.id}' asks somebody, and nobody is there to answer`)
  const { values } = await givenSecrets(plan, [params.var ?? []].flat(), outside.env)
  const name = typeof id === 'string' ? id : plan.slug
  const request = {
    id: name,
    schedule: at,
    file: resolve(path),
    plan: plan.id,
    document: plan.document.text,
    var: Object.entries(values).map(([variable, value]) => `${variable}=${value}`),
    confirm: (global.confirm ?? '').split(',').filter(Boolean),
    'repeat-missed': params['repeat-missed'] === '1' ? '1' : '0',
  }
  const connection = await outside.connect()
  const isThere = (await schedules(connection)).some((one) => one.id === name)
  const [method, place] = isThere ? ['PUT', `/hako/plan-jobs/${encodeURIComponent(name)}`] : ['POST', '/hako/plan-jobs']
  await connection.call(method, place, request, { signal: terminal.signal })
  terminal.out(name)
  return exitCodes.ok
}

export async function listSchedules(args: readonly string[], terminal: Terminal, outside: Outside): Promise<number> {
  const { positionals, global } = parseFor({ positional: [], options: {} }, args)
  if (positionals.length > 0) throw new Fault('invalid', `'${positionals.join(' ')}' is too much`)
  const connection = await outside.connect()
  const rows = []
  for (const one of await schedules(connection)) rows.push({ ...one, 'file-is': await fileOf(one, connection) })
  const { language, width } = terminal
  const columns = ['id', 'plan', 'schedule', 'next-run', 'owner', 'file-is']
  terminal.out(await printed(rows, { format: global.output, columns, id: 'id', language, width }))
  return exitCodes.ok
}

export async function removeSchedule(args: readonly string[], _: Terminal, outside: Outside): Promise<number> {
  const [id, ...extra] = parseFor({ positional: [], options: {} }, args).positionals
  if (id === undefined || extra.length > 0)
    throw new Fault('invalid', 'name one schedule: hako plan schedule remove <id>')
  await (await outside.connect()).call('DELETE', `/hako/plan-jobs/${encodeURIComponent(id)}`)
  return exitCodes.ok
}

export async function schedules(connection: Connection): Promise<readonly Schedule[]> {
  return (await connection.call('GET', '/hako/plan-jobs')).data as readonly Schedule[]
}

/** Whether the file says what is run: `same`, `changed`, or `gone`; nothing when it was read elsewhere. */
async function fileOf({ id, file }: Schedule, connection: Connection): Promise<string> {
  if (file === undefined) return ''
  const { data } = await connection.call('GET', `/hako/plan-jobs/${encodeURIComponent(id)}`)
  const { document } = data as { readonly document: string }
  try {
    const isSame = digestOf((await readPlan(file)).plan) === digestOf(planOf(documentOf(document)))
    return isSame ? 'same' : `changed: ${shown(file)}`
  } catch (fault) {
    if (isFault(fault, 'missing')) return `gone: ${shown(file)}`
    if (isFault(fault)) return `changed: ${shown(file)}`
    throw fault
  }
}
