/** Writes a new plan to begin from. */
import { writeFile } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { skeleton } from '#plans/skeleton.ts'
import { parseFor } from '../arguments.ts'
import { exitCodes } from '../exit.ts'
import type { Terminal } from '../terminal.ts'

const title = { type: 'string', required: false, multiple: false, isSecret: false } as const

export async function newPlan(args: readonly string[], terminal: Terminal): Promise<number> {
  const { positionals, params } = parseFor({ positional: [], options: { title } }, args)
  const [path, ...extra] = positionals
  if (path === undefined || extra.length > 0 || !path.endsWith('.md'))
    throw new Fault('invalid', 'name one file to be made: hako plan new <file.md>')
  const name = basename(resolve(path))
  const text = skeleton({
    id: `plans/${name}`,
    title: typeof params.title === 'string' ? params.title : name.replace(/\.md$/, ''),
    date: new Date(systemClock.now()).toISOString().slice(0, 10),
    language: terminal.language,
  })
  await writeFile(path, text, { flag: 'wx' }).catch((cause: unknown) => {
    throw codeOf(cause) === 'EEXIST' ? new Fault('conflict', `'${path}' is there already`) : asFileFault(cause, path)
  })
  terminal.out(path)
  return exitCodes.ok
}
