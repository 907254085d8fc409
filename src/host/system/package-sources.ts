/**
 * Where packages come from: apt's two kinds of files, read and changed by apt's rules.
 *
 * A repository is known by its file and its place among the repositories of that file; those switched off count. Changing
 * one touches its own lines alone: remarks, order and spelling of everything else are their owner's.
 */
import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfPresent } from '../files.ts'

export interface RepositoryFile {
  /** As it is called on the machine: `/etc/apt/sources.list.d/debian.sources`. */
  readonly path: string
  readonly type: 'list' | 'sources'
  readonly text: string
  /** SHA-256 of the text. */
  readonly digest: Buffer
  readonly repositories: readonly Repository[]
}

export interface Repository {
  readonly types: readonly string[]
  readonly uris: readonly string[]
  readonly suites: readonly string[]
  readonly components: readonly string[]
  readonly options: Readonly<Record<string, readonly string[]>>
  readonly isEnabled: boolean
  readonly comment: string
}

const home = '/etc/apt'

/** @param root stands for `/` */
export async function repositoryFiles(root = '/'): Promise<RepositoryFile[]> {
  const names = await readdir(join(root, home, 'sources.list.d')).catch((): string[] => [])
  const parts = names.filter((name) => /^[\w.-]+\.(?:list|sources)$/.test(name)).toSorted()
  const paths = [`${home}/sources.list`, ...parts.map((name) => `${home}/sources.list.d/${name}`)]
  const files = await Promise.all(paths.map(async (path) => ({ path, text: await readIfPresent(join(root, path)) })))
  return files.flatMap(({ path, text }) => {
    if (text === undefined) return []
    const type = path.endsWith('.sources') ? 'sources' : 'list'
    const repositories = type === 'sources' ? parseStanzas(text) : parseLines(text)
    return [{ path, type, text, repositories, digest: createHash('sha256').update(text).digest() } as const]
  })
}

/** The text of a file with one of its repositories switched on or off. */
export function withEnabled({ type, text }: Pick<RepositoryFile, 'type' | 'text'>, index: number, isEnabled: boolean) {
  return type === 'sources' ? stanzasWith(text, index, isEnabled) : linesWith(text, index, isEnabled)
}

const oneLine = /^(\s*)(#[#\s]*)?(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(cdrom:\[[^\]]*\]\S*|[^\s#]+:\S*)\s+(\S+)\s*(.*)$/

/** Reads the one-line form: `deb [option=value] uri suite component…`; a remark that is such a line is one switched off. */
export function parseLines(text: string): Repository[] {
  return text.split('\n').flatMap((line) => {
    const [, , off, type = '', optionText = '', uri = '', suite = '', rest = ''] = oneLine.exec(line) ?? []
    if (type === '') return []
    const [components = '', comment = ''] = rest.split('#', 2)
    const options = optionText.split(/\s+/).filter(Boolean)
    return [
      {
        types: [type],
        uris: [uri],
        suites: [suite],
        components: components.split(/\s+/).filter(Boolean),
        options: Object.fromEntries(
          options.map((option) => [option.split('=', 1)[0] ?? '', option.slice(option.indexOf('=') + 1).split(',')]),
        ),
        isEnabled: off === undefined,
        comment: comment.trim(),
      },
    ]
  })
}

function linesWith(text: string, index: number, isEnabled: boolean): string {
  let at = -1
  return text
    .split('\n')
    .map((line) => {
      const [, indent = '', off] = oneLine.exec(line) ?? []
      if (!oneLine.test(line)) return line
      at += 1
      if (at !== index || (off === undefined) === isEnabled) return line
      return isEnabled ? indent + line.slice(indent.length + (off?.length ?? 0)) : `# ${line}`
    })
    .join('\n')
}

/** What apt reads as no. */
const noes = ['no', 'false', 'without', 'off', 'disable']

/** Reads stanzas of `Key: value` lines. */
export function parseStanzas(text: string): Repository[] {
  return stanzasOf(text).flatMap(({ lines }) => {
    const comment = lines.filter((line) => line.startsWith('#')).map((line) => line.slice(1).trim())
    const joined = lines
      .filter((line) => !line.startsWith('#'))
      .join('\n')
      .replaceAll(/\n[ \t]+/g, ' ')
    const fields = [...joined.matchAll(/^([A-Za-z-]+):[ \t]*(.*)$/gm)]
    const values = new Map(
      fields.map(([, key = '', value = '']) => [key.toLowerCase(), value.split(/\s+/).filter(Boolean)]),
    )
    const known = ['types', 'uris', 'suites', 'components', 'enabled']
    const others = fields.filter(([, key = '']) => !known.includes(key.toLowerCase()))
    return [
      {
        types: values.get('types') ?? [],
        uris: values.get('uris') ?? [],
        suites: values.get('suites') ?? [],
        components: values.get('components') ?? [],
        options: Object.fromEntries(
          others.map(([, key = '', value = '']) => [key, value.split(/\s+/).filter(Boolean)]),
        ),
        isEnabled: !noes.includes(values.get('enabled')?.[0]?.toLowerCase() ?? ''),
        comment: comment.join('\n'),
      },
    ]
  })
}

interface Stanza {
  /** Of its first line among all. */
  readonly start: number
  readonly lines: readonly string[]
}

/** Those that are a repository; a block of nothing but remarks is none. */
function stanzasOf(text: string): Stanza[] {
  const stanzas: { start: number; lines: string[] }[] = []
  let isOpen = false
  for (const [start, line] of text.split('\n').entries()) {
    const isBlank = line.trim() === ''
    if (!isBlank && isOpen) stanzas.at(-1)?.lines.push(line)
    else if (!isBlank) stanzas.push({ start, lines: [line] })
    isOpen = !isBlank
  }
  return stanzas.filter(({ lines }) => lines.some((line) => /^types:/i.test(line)))
}

function stanzasWith(text: string, index: number, isEnabled: boolean): string {
  const stanza = stanzasOf(text)[index]
  const all = text.split('\n')
  if (!stanza || parseStanzas(text)[index]?.isEnabled === isEnabled) return text
  const field = stanza.lines.findIndex((line) => /^enabled:/i.test(line))
  const line = `Enabled: ${isEnabled ? 'yes' : 'no'}`
  if (field >= 0) return all.with(stanza.start + field, line).join('\n')
  // Before the first field, so that no folded value is torn apart.
  const first = stanza.lines.findIndex((one) => !one.startsWith('#'))
  return all.toSpliced(stanza.start + first, 0, line).join('\n')
}
