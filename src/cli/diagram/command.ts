/** `hako diagram`: draws what the node is made of, once or whenever something changes. */
import { setTimeout as sleep } from 'node:timers/promises'
import { invalid, isFault } from '#base/fault.ts'
import { writeFileAtomic } from '#host/files.ts'
import type { Command } from '#rest/command.ts'
import type { Architecture, Part } from '#views/architecture/graph.ts'
import { parseFor } from '../arguments.ts'
import { diagramOptions } from '../built-in.ts'
import { exitCodes } from '../exit.ts'
import { filledPath } from '../path.ts'
import { type RunFacts, runCommand } from '../run-command.ts'
import { say } from '../text.ts'
import { translation } from '../translation.ts'
import { drawArchitecture, type Theme, themes } from './svg.ts'
import { wayOf } from './way.ts'

/** A part that changes is drawn so within five seconds. */
const lookEveryMs = 2_000

/** A table says little of a graph: the picture is what is shown, unless another form is asked for. */
export async function drawDiagram(command: Command, args: readonly string[], facts: RunFacts): Promise<number> {
  const { params, global, positionals } = parseFor(command, args)
  const { level, to, theme = 'auto', follow, backup, request } = asTexts(params)
  const isPicture = global.output === 'table' && !global.help && positionals.length === 0
  if (!isPicture) {
    const extra = Object.keys(diagramOptions).filter((name) => params[name] !== undefined)
    if (extra.length > 0 && !global.help) {
      throw invalid(Object.fromEntries(extra.map((name) => [name, `is for the picture, not for -o ${global.output}`])))
    }
    return runCommand(command, args, facts)
  }
  if (!isTheme(theme)) throw invalid({ theme: `'${theme}' is none of ${themes.join(', ')}` })
  if (follow === '1' && to === undefined) throw invalid({ to: 'must name the file that is kept up to date: --to FILE' })
  if (request !== undefined && (backup !== undefined || follow === '1'))
    throw invalid({ request: 'is made once, and shown alone: without --backup and --follow' })
  const { language } = facts.terminal
  const translate = await translation(language)
  const now = () => architectureOf(command, level, facts)
  const drawing = { language, theme, translate }
  const draw = async (architecture: Architecture) => {
    const way = backup === undefined ? undefined : await wayOf(backup, architecture, facts)
    return drawArchitecture(architecture, { ...drawing, way })
  }
  const drawnNow = async () => {
    if (request === undefined) return draw(await now())
    const { way, architecture } = await (await import('./request.ts')).wayOfRequest(request, now, facts)
    return drawArchitecture(architecture, { ...drawing, way })
  }
  if (to === undefined) facts.terminal.out((await drawnNow()).trimEnd())
  else if (follow !== '1') await writeFileAtomic(to, await drawnNow(), 0o644)
  else await keepUpToDate(to, { now, draw }, facts)
  return exitCodes.ok
}

function asTexts(params: Readonly<Record<string, string | string[]>>): Readonly<Record<string, string | undefined>> {
  return Object.fromEntries(Object.entries(params).map(([name, value]) => [name, String(value)]))
}

function isTheme(text: string): text is Theme {
  return themes.some((theme) => theme === text)
}

async function architectureOf(
  { path }: Command,
  level: string | undefined,
  { connection, list: { node }, terminal: { signal } }: RunFacts,
): Promise<Architecture> {
  const asked = level === undefined ? {} : { level }
  return (await connection.call('GET', filledPath(path, { node }), asked, { signal })).data as Architecture
}

interface Keeping {
  readonly now: () => Promise<Architecture>
  readonly draw: (architecture: Architecture) => Promise<string>
}

async function keepUpToDate(to: string, { now, draw }: Keeping, { terminal }: RunFacts): Promise<void> {
  let [last, written] = [await now(), '']
  while (!terminal.signal.aborted) {
    const text = await draw(last)
    if (text !== written) {
      await writeFileAtomic(to, text, 0o644)
      terminal.show(say(terminal.language, 'diagramDrawn', to))
    }
    written = text
    await sleep(lookEveryMs, undefined, { signal: terminal.signal }).catch(() => undefined)
    last = await now().catch((fault: unknown) => {
      if (terminal.signal.aborted) return last
      if (isFault(fault, 'unavailable')) return unanswered(last)
      throw fault
    })
  }
}

/** Nobody tells any more how the parts are; that the daemon does not answer is all that is known. */
export function unanswered(last: Architecture): Architecture {
  const isOf = (part: Part): Part =>
    part.kind === 'daemon'
      ? { ...part, state: 'failed', detail: 'does not answer' }
      : { ...part, state: 'unknown', ...(part.count === undefined ? {} : { detail: `${part.count} unknown` }) }
  return { ...last, parts: last.parts.map(isOf) }
}
