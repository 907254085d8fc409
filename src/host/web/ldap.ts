/**
 * A directory (LDAP, Active Directory), read. The protocol is `ldapts`', loaded when a directory is asked first.
 *
 * Servers are asked in turn until one can be reached; one that is reached and refuses is the answer. What a directory
 * says comes from somebody else: entries, time and the size of a page are bounded.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type ConnectionOptions, getCACertificates, type SecureVersion } from 'node:tls'
import type { Client, Entry } from 'ldapts'
import { Fault, isFault, messageOf } from '#base/fault.ts'

export interface DirectoryAddress {
  readonly servers: readonly string[]
  readonly port: number | undefined
  readonly mode: 'ldap' | 'ldaps' | 'ldap+starttls'
  readonly tls: {
    /** Refuse a server whose certificate nobody trusted signed. */
    readonly isVerified: boolean
    /** File or directory; the system's when it is not given. */
    readonly trusted: string | undefined
    readonly minVersion: SecureVersion | undefined
    readonly certificate: string | undefined
    readonly key: string | undefined
  }
  /** Nobody in particular when it is not given. */
  readonly bind: { readonly dn: string; readonly password: string } | undefined
}

export interface DirectorySearch {
  readonly base: string
  readonly filter: string
  readonly attributes: readonly string[]
}

export interface DirectoryEntry {
  readonly dn: string
  /** All values of the attribute, whatever the case of its name. */
  readonly values: (attribute: string) => readonly string[]
}

export interface Directory {
  readonly search: (wanted: DirectorySearch) => Promise<DirectoryEntry[]>
  /** Where the directory begins, as Active Directory says it. */
  readonly defaultBase: () => Promise<string | undefined>
}

export const ldapLimits = { entries: 50_000, page: 500, connectMs: 5_000, answerMs: 60_000, certificateBytes: 2 ** 20 }

/**
 * Lends a directory that has been logged in to.
 * @throws Fault `unavailable` when no server can be reached, `denied` when the log-in is refused
 */
export async function withDirectory<T>(
  address: DirectoryAddress,
  use: (directory: Directory) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const tls = address.mode === 'ldap' ? undefined : await tlsOptions(address)
  let unreached: unknown
  for (const server of address.servers) {
    const client = await clientFor(server, address, tls)
    const stop = () => void client.unbind().catch(() => {})
    signal?.addEventListener('abort', stop, { once: true })
    try {
      signal?.throwIfAborted()
      await open(client, server, address, tls)
      return await use(directoryOver(client))
    } catch (error) {
      if (signal?.aborted) throw new Fault('aborted', 'interrupted', { cause: error })
      if (!isFault(error, 'unavailable')) throw error
      unreached = error
    } finally {
      signal?.removeEventListener('abort', stop)
      await client.unbind().catch(() => {})
    }
  }
  throw unreached
}

async function clientFor(
  server: string,
  { mode, port }: DirectoryAddress,
  tls: ConnectionOptions | undefined,
): Promise<Client> {
  const { Client: LdapClient } = await import('ldapts')
  const host = server.includes(':') ? `[${server}]` : server
  const scheme = mode === 'ldaps' ? 'ldaps' : 'ldap'
  return new LdapClient({
    url: `${scheme}://${host}:${port ?? (mode === 'ldaps' ? 636 : 389)}`,
    connectTimeout: ldapLimits.connectMs,
    timeout: ldapLimits.answerMs,
    strictDN: false,
    ...(tls && mode === 'ldaps' ? { tlsOptions: { ...tls, ...nameOf(server) } } : {}),
  })
}

async function open(
  client: Client,
  server: string,
  { mode, bind }: DirectoryAddress,
  tls: ConnectionOptions | undefined,
): Promise<void> {
  try {
    if (mode === 'ldap+starttls') await client.startTLS({ ...tls, ...nameOf(server) })
    await client.bind(bind?.dn ?? '', bind?.password ?? '')
  } catch (cause) {
    const { InvalidCredentialsError, ResultCodeError } = await import('ldapts')
    if (cause instanceof InvalidCredentialsError) {
      throw new Fault('denied', `the directory '${server}' refuses the log-in of '${bind?.dn ?? ''}'`, {
        cause,
        remedy: 'Look at bind_dn and password of the realm.',
      })
    }
    if (cause instanceof ResultCodeError) throw refused(cause)
    throw new Fault('unavailable', `the directory '${server}' cannot be reached: ${messageOf(cause)}`, { cause })
  }
}

function directoryOver(client: Client): Directory {
  return {
    async search({ base, filter, attributes }) {
      const found: DirectoryEntry[] = []
      try {
        const pages = client.searchPaginated(base, {
          scope: 'sub',
          filter,
          attributes: [...attributes],
          paged: { pageSize: ldapLimits.page },
        })
        for await (const { searchEntries } of pages) {
          found.push(...searchEntries.map(entryOf))
          if (found.length > ldapLimits.entries) {
            throw new Fault('exhausted', `the directory has more than ${ldapLimits.entries} entries below '${base}'`, {
              remedy: 'Narrow it with base_dn, group_dn or a filter.',
            })
          }
        }
      } catch (cause) {
        throw isFault(cause) ? cause : refused(cause, base)
      }
      return found
    },
    async defaultBase() {
      const { searchEntries } = await client
        .search('', { scope: 'base', filter: '(objectClass=*)', attributes: ['defaultNamingContext'] })
        .catch((cause: unknown) => {
          throw refused(cause)
        })
      return searchEntries.map(entryOf).flatMap(({ values }) => values('defaultNamingContext'))[0]
    },
  }
}

function refused(cause: unknown, base?: string): Fault {
  const where = base === undefined ? '' : ` below '${base}'`
  return new Fault('failed', `the directory does not answer${where}: ${messageOf(cause)}`, { cause })
}

function entryOf({ dn, ...attributes }: Entry): DirectoryEntry {
  const byName = new Map(Object.entries(attributes).map(([name, value]) => [name.toLowerCase(), textsOf(value)]))
  return { dn, values: (attribute) => byName.get(attribute.toLowerCase()) ?? [] }
}

function textsOf(value: Entry[string]): string[] {
  return [value].flat().map((one) => (typeof one === 'string' ? one : one.toString('utf8')))
}

/** An address is no name, and TLS does not take it for one. */
function nameOf(server: string): { servername?: string } {
  return /^[\d.]+$|:/.test(server) ? {} : { servername: server }
}

async function tlsOptions({ tls }: DirectoryAddress): Promise<ConnectionOptions> {
  const { isVerified, trusted, minVersion, certificate, key } = tls
  const ca = trusted === undefined ? getCACertificates('system') : await certificatesIn(trusted)
  return {
    rejectUnauthorized: isVerified,
    ...(isVerified ? { ca } : {}),
    ...(minVersion ? { minVersion } : {}),
    ...(certificate === undefined ? {} : { cert: await certificateFile(certificate) }),
    ...(key === undefined ? {} : { key: await certificateFile(key) }),
  }
}

/** @throws Fault `unavailable`; the content is never repeated */
async function certificatesIn(path: string): Promise<string[]> {
  const isDirectory = await stat(path).then(
    (facts) => facts.isDirectory(),
    () => false,
  )
  if (!isDirectory) return [await certificateFile(path)]
  const names = (await readdir(path)).filter((name) => /\.(?:pem|crt|0)$/.test(name)).slice(0, 1000)
  return Promise.all(names.map((name) => certificateFile(join(path, name))))
}

async function certificateFile(path: string): Promise<string> {
  try {
    const { size } = await stat(path)
    if (size > ldapLimits.certificateBytes) throw new Error('it is too large')
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw new Fault('failed', `the certificate file '${path}' cannot be read`, { cause })
  }
}
