/**
 * Settings of the machine that live in files: time zone, name servers, host names.
 *
 * A node that shares its machine with others (a lab, a node under test) may look and not touch: these files are
 * everybody's. A root of its own turns that into a copy it may write. Rejected: `timedatectl` and `resolvconf`, which
 * need a running systemd and write the same files.
 */
import { createHash } from 'node:crypto'
import { lstat, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { dirname, join, relative } from 'node:path'
import { Fault, invalid } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { codeOf, readIfPresent, writeFileAtomic } from '#host/files.ts'

export interface MachineFilesNeeds {
  readonly random: Random
  /** Directory that stands for `/`. */
  readonly root?: string | undefined
  /** The machine's files are this node's to write. */
  readonly isOwn: boolean
}

export interface NameServers {
  readonly search?: string
  /** Up to three addresses. */
  readonly servers: readonly string[]
}

export interface HostsFile {
  readonly data: string
  /** SHA-1 of the text, in hexadecimal. */
  readonly digest: string
}

const zones = '/usr/share/zoneinfo'
const mostServers = 3

export class MachineFiles {
  readonly #root: string
  readonly #isOwn: boolean
  readonly #random: Random

  constructor({ root = '/', isOwn, random }: MachineFilesNeeds) {
    this.#root = root
    this.#isOwn = isOwn
    this.#random = random
  }

  /** Name of the time zone in force: `Europe/Vienna`. */
  async timeZone(): Promise<string> {
    const linked = await readlink(this.#path('etc/localtime')).catch((cause: unknown) => {
      // A copy instead of a link, or none at all: then the name is in the other file, if anywhere.
      if (['ENOENT', 'EINVAL'].includes(codeOf(cause) ?? '')) return ''
      throw cause
    })
    const byLink = /zoneinfo\/(.+)$/.exec(linked)?.[1]
    const named = byLink ?? (await readIfPresent(this.#path('etc/timezone')))?.trim() ?? ''
    return isZone(named) ? named : 'UTC'
  }

  /** @throws Fault `invalid` for a zone this machine does not know */
  async setTimeZone(zone: string): Promise<void> {
    this.#requireOwn('the time zone')
    const data = join(zones, zone)
    const isKnown =
      isZone(zone) &&
      (await stat(data).then(
        (facts) => facts.isFile(),
        () => false,
      ))
    if (!isKnown) throw invalid({ timezone: `No such timezone: '${zone}'` })
    const link = this.#path('etc/localtime')
    const temporary = `${link}.${this.#random.uuid()}`
    await symlink(relative(dirname(this.#path('etc/localtime', '/')), data), temporary)
    try {
      await rename(temporary, link)
    } catch (cause) {
      await rm(temporary, { force: true })
      throw cause
    }
    await writeFileAtomic(this.#path('etc/timezone'), `${zone}\n`, 0o644)
  }

  async nameServers(): Promise<NameServers> {
    return parseResolver((await readIfPresent(this.#path('etc/resolv.conf'))) ?? '')
  }

  /** Options and comments of the file stay. */
  async setNameServers(wanted: NameServers): Promise<void> {
    this.#requireOwn('the list of name servers')
    const path = this.#path('etc/resolv.conf')
    await requirePlain(path)
    await replace(path, printResolver((await readIfPresent(path)) ?? '', wanted))
  }

  async hosts(): Promise<HostsFile> {
    const data = (await readIfPresent(this.#path('etc/hosts'))) ?? ''
    return { data, digest: createHash('sha1').update(data).digest('hex') }
  }

  /** @throws Fault `conflict` when the file is no longer the one with this digest; `invalid` naming a wrong line */
  async setHosts(data: string, digest?: string): Promise<void> {
    this.#requireOwn('the list of host names')
    const complaint = hostsComplaint(data)
    if (complaint !== undefined) throw invalid({ data: complaint })
    if (digest !== undefined && digest !== (await this.hosts()).digest) {
      throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
    }
    const path = this.#path('etc/hosts')
    await requirePlain(path)
    await replace(path, data.endsWith('\n') || data === '' ? data : `${data}\n`)
  }

  #path(name: string, root = this.#root): string {
    return join(root, name)
  }

  #requireOwn(what: string): void {
    if (this.#isOwn) return
    throw new Fault('conflict', `${what} belongs to the machine, which this node shares with others`, {
      remedy: 'Change it on the machine itself.',
    })
  }
}

/** @returns at most three servers, as the C library takes them; the last `search` or `domain` wins */
export function parseResolver(text: string): NameServers {
  const lines = text.split('\n').map((line) => line.trim().split(/\s+/))
  const servers = lines.flatMap(([word, value = '']) => (word === 'nameserver' && isAddress(value) ? [value] : []))
  const search = lines
    .findLast(([word]) => word === 'search' || word === 'domain')
    ?.slice(1)
    .join(' ')
  return { servers: servers.slice(0, mostServers), ...(search === undefined || search === '' ? {} : { search }) }
}

export function printResolver(before: string, { search, servers }: NameServers): string {
  const kept = before
    .split('\n')
    .filter((line) => !/^\s*(?:nameserver|search|domain)\b/.test(line) && line.trim() !== '')
  const named = [...(search === undefined ? [] : [`search ${search}`]), ...servers.map((ip) => `nameserver ${ip}`)]
  return [...named, ...kept, ''].join('\n')
}

/** What is wrong with a hosts file: its first line that is neither a remark nor an address with names. */
function hostsComplaint(text: string): string | undefined {
  const wrong = text.split('\n').findIndex((line) => {
    const words = line.replace(/#.*/, '').trim().split(/\s+/).filter(Boolean)
    return words.length > 0 && (words.length === 1 || !isAddress(words[0] ?? ''))
  })
  return wrong < 0 ? undefined : `line ${wrong + 1} is not an address followed by names`
}

/** With or without the name of an interface (`fe80::1%eth0`). */
function isAddress(text: string): boolean {
  return isIP(text) !== 0
}

function isZone(name: string): boolean {
  if (!/^[A-Za-z0-9+_-]+(?:\/[A-Za-z0-9+_-]+)*$/.test(name)) return false
  try {
    return Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== ''
  } catch {
    return false // The only thing it throws is that it knows no such zone.
  }
}

/** A link belongs to whoever writes what it leads to, and would be written over at any moment. */
async function requirePlain(path: string): Promise<void> {
  const facts = await lstat(path).catch(() => undefined)
  if (!facts?.isSymbolicLink()) return
  throw new Fault('conflict', `'${path}' is a link to ${await readlink(path)}, which another program writes`, {
    remedy: 'Change it in the settings of that program (systemd-resolved, resolvconf).',
  })
}

/** In one rename; in place where the file is mounted and cannot be renamed over. */
async function replace(path: string, text: string): Promise<void> {
  try {
    await writeFileAtomic(path, text, 0o644)
  } catch (cause) {
    if (codeOf(cause) !== 'EBUSY') throw cause
    await writeFile(path, text)
  }
}
