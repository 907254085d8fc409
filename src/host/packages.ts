/** Packages of a Debian system: what is installed, what could be newer, and where packages come from. */
import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Host } from './host.ts'
import { readIfPresent } from './files.ts'

export interface InstalledPackage {
  readonly name: string
  readonly version: string
  readonly arch: string
  readonly section: string
  readonly priority: string
  readonly title: string
}

/** Those of `names` that are installed, sorted by name. */
export async function installedPackages(host: Host, names: readonly string[]): Promise<InstalledPackage[]> {
  const fields = ['Package', 'Version', 'Architecture', 'Section', 'Priority', 'db:Status-Status', 'binary:Summary']
  const format = `${fields.map((field) => `\${${field}}`).join('\\t')}\\n`
  // 1 where one of the names is unknown.
  const { stdout } = await host.run(['dpkg-query', '--show', `--showformat=${format}`, '--', ...names], {
    okCodes: [0, 1],
  })
  return parseInstalled(stdout)
}

export function parseInstalled(text: string): InstalledPackage[] {
  return text
    .split('\n')
    .map((line) => line.split('\t'))
    .filter((fields) => fields[5] === 'installed')
    .map(([name = '', version = '', arch = '', section = '', priority = '', , title = '']) => ({
      name,
      version,
      arch,
      section,
      priority,
      title,
    }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

export interface Upgrade {
  readonly name: string
  readonly installed: string | undefined
  readonly version: string
  readonly origin: string
  readonly arch: string
}

/** What an upgrade would install, by the lists as they were last fetched. Nothing is changed. */
export async function upgrades(host: Host): Promise<Upgrade[]> {
  const { stdout } = await host.run(['apt-get', '--simulate', '--quiet', 'dist-upgrade'], { timeoutMs: 120_000 })
  return parseUpgrades(stdout)
}

/** Reads lines such as `Inst bash [5.2.15-2] (5.2.15-3 Debian:12.15/oldstable [amd64])`. */
export function parseUpgrades(text: string): Upgrade[] {
  return [...text.matchAll(/^Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ([^[]*?)\s*\[([^\]]+)\]\)/gm)].map(
    ([, name = '', installed, version = '', origins = '', arch = '']) => ({
      name,
      installed,
      version,
      origin: origins.split(':')[0] ?? '',
      arch,
    }),
  )
}

/** Section, priority and descriptions of packages in the lists. */
export async function packageFacts(host: Host, names: readonly string[]): Promise<ReadonlyMap<string, PackageFacts>> {
  if (names.length === 0) return new Map()
  const { stdout } = await host.run(['apt-cache', 'show', '--no-all-versions', '--', ...names], { okCodes: [0, 100] })
  return parsePackageFacts(stdout)
}

export interface PackageFacts {
  readonly section: string
  readonly priority: string
  readonly title: string
  readonly description: string
}

export function parsePackageFacts(text: string): ReadonlyMap<string, PackageFacts> {
  const found = new Map<string, PackageFacts>()
  for (const block of text.split(/\n\n+/)) {
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(block)?.[1] ?? ''
    const name = field('Package')
    if (name === '' || found.has(name)) continue
    const long = /^Description(?:-en)?:.*\n((?: .*\n?)*)/m.exec(block)?.[1] ?? ''
    const title = field('Description-en') || field('Description')
    const description = long.replaceAll(/^ \.?/gm, '').trim()
    found.set(name, { section: field('Section'), priority: field('Priority'), title, description })
  }
  return found
}

export interface RepositoryFile {
  readonly path: string
  readonly type: 'list' | 'sources'
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

/** @param root stands for `/etc/apt` */
export async function repositoryFiles(root = '/etc/apt'): Promise<RepositoryFile[]> {
  const parts = (await readdir(join(root, 'sources.list.d')).catch((): string[] => []))
    .filter((name) => /\.(?:list|sources)$/.test(name))
    .toSorted()
    .map((name) => join(root, 'sources.list.d', name))
  const files = await Promise.all(
    [join(root, 'sources.list'), ...parts].map(async (path) => ({ path, text: await readIfPresent(path) })),
  )
  return files.flatMap(({ path, text }) => {
    if (text === undefined) return []
    const type = path.endsWith('.sources') ? 'sources' : 'list'
    const repositories = type === 'sources' ? parseStanzas(text) : parseLines(text)
    return [{ path, type, repositories, digest: createHash('sha256').update(text).digest() } as const]
  })
}

/** Reads the one-line form: `deb [option=value] uri suite component…`; a remark that is such a line is one switched off. */
export function parseLines(text: string): Repository[] {
  return text.split('\n').flatMap((line) => {
    const [, off = '', type = '', optionText = '', uri = '', suite = '', rest = ''] =
      /^\s*(#*)\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+:\S+)\s+(\S+)\s*(.*)$/.exec(line) ?? []
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
        isEnabled: off === '',
        comment: comment.trim(),
      },
    ]
  })
}

/** Reads stanzas of `Key: value` lines. */
export function parseStanzas(text: string): Repository[] {
  return text.split(/\n\s*\n/).flatMap((stanza) => {
    const lines = stanza.split('\n')
    const comment = lines.filter((line) => line.startsWith('#')).map((line) => line.slice(1).trim())
    const joined = lines
      .filter((line) => !line.startsWith('#'))
      .join('\n')
      .replaceAll(/\n[ \t]+/g, ' ')
    const fields = [...joined.matchAll(/^([A-Za-z-]+):[ \t]*(.*)$/gm)]
    const values = new Map(
      fields.map(([, key = '', value = '']) => [key.toLowerCase(), value.split(/\s+/).filter(Boolean)]),
    )
    const types = values.get('types')
    if (types === undefined) return []
    const known = ['types', 'uris', 'suites', 'components', 'enabled']
    const others = fields.filter(([, key = '']) => !known.includes(key.toLowerCase()))
    return [
      {
        types,
        uris: values.get('uris') ?? [],
        suites: values.get('suites') ?? [],
        components: values.get('components') ?? [],
        options: Object.fromEntries(
          others.map(([, key = '', value = '']) => [key, value.split(/\s+/).filter(Boolean)]),
        ),
        isEnabled: values.get('enabled')?.[0]?.toLowerCase() !== 'no',
        comment: comment.join('\n'),
      },
    ]
  })
}
