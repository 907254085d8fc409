/** Packages of a Debian system: what is installed, and what could be newer. */
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { codeOf } from '../files.ts'

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

const changelogBytes = 8 * MiB

/**
 * What changed in a package: of the installed version from this machine, of others from where it comes from.
 * @throws Fault `failed` with what apt says
 */
export async function changelog(host: Host, name: string, version?: string): Promise<string> {
  const [installed] = await installedPackages(host, [name])
  const isHere = installed !== undefined && (version === undefined || version === installed.version)
  const own = isHere ? await installedChangelog(name) : undefined
  if (own !== undefined) return own
  const wanted = version === undefined ? name : `${name}=${version}`
  const argv = ['apt-get', '-qq', '-o', 'Acquire::Retries=0', 'changelog', wanted] as const
  const { stdout } = await host.run(argv, { env: { PAGER: 'cat' }, outputBytes: changelogBytes })
  return stdout
}

async function installedChangelog(name: string): Promise<string | undefined> {
  // Packages for one architecture carry its name where they live beside another's.
  const directory = `/usr/share/doc/${name.split(':')[0] ?? name}`
  for (const file of ['changelog.Debian.gz', 'changelog.gz']) {
    try {
      const packed = await readFile(`${directory}/${file}`)
      return (await promisify(gunzip)(packed, { maxOutputLength: changelogBytes })).toString('utf8')
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT') throw cause
    }
  }
  return undefined
}

/**
 * Fetches the lists of packages anew. A list that cannot be had is a failure, not a remark.
 * @param root stands for `/`
 */
export async function refreshLists(
  host: Host,
  root: string,
  { onLine, signal }: { readonly onLine: (line: string) => void; readonly signal: AbortSignal },
): Promise<void> {
  const place = root === '/' ? [] : ['-o', `Dir=${root}`, '-o', 'Dir::State::status=/var/lib/dpkg/status']
  const options = ['-q', ...place, '-o', 'APT::Update::Error-Mode=any', '-o', 'Acquire::Retries=0']
  const failures: string[] = []
  const hear = (line: string) => {
    // Its last line only says that something failed.
    const failure = /^[EW]: (Failed to fetch .*)$/.exec(line)?.[1]
    if (failure !== undefined) failures.push(failure)
    onLine(line)
  }
  try {
    await host.run(['apt-get', ...options, 'update'], { timeoutMs: refreshMs, signal, onLine: hear })
  } catch (cause) {
    const [first] = failures
    if (first === undefined || !isFault(cause, 'failed')) throw cause
    throw new Fault('unavailable', `not every list could be fetched: ${first}`, { cause })
  }
}

const refreshMs = 600_000
