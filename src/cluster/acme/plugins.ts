/**
 * How names are proven to an ACME server: by a file the node shows on a port of its own (standalone), or by a record in
 * the name server, which takes changes as RFC 2136 says them (dns with nsupdate).
 *
 * Rejected: scripts for the interfaces of a hundred providers, run as root with everybody's credentials.
 */
import { createHash } from 'node:crypto'
import { Fault, invalid } from '#base/fault.ts'
import { boolean, enumOf, integer, object, optional, type Static, string } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

export const dnsInterfaces = ['nsupdate'] as const

const shape = object({
  type: enumOf(['dns', 'standalone']),
  api: optional(enumOf(dnsInterfaces)),
  /** Base64 of lines `NAME=value`. */
  data: optional(string()),
  disable: optional(boolean()),
  nodes: optional(string()),
  'validation-delay': optional(integer()),
})
export type AcmePlugin = Static<typeof shape>

const standalone: AcmePlugin = { type: 'standalone' }
const own = 'standalone'

export class AcmePlugins {
  readonly #documents: Documents<AcmePlugin>

  constructor({ store }: { readonly store: Store }) {
    this.#documents = new Documents(store, { noun: 'ACME plugin', prefix: 'cluster/acme/plugins/', schema: shape })
  }

  /** The one every node has comes first. */
  async list(): Promise<{ plugin: string; value: AcmePlugin }[]> {
    const others = (await this.#documents.list()).map(({ name, value }) => ({ plugin: name, value }))
    return [{ plugin: own, value: standalone }, ...others]
  }

  /** @throws Fault `missing`, in the words clients know */
  async get(id: string): Promise<AcmePlugin> {
    if (id === own) return standalone
    const found = await this.#documents.find(id)
    if (!found) throw new Fault('missing', `ACME plugin '${id}' not defined`)
    return found.value
  }

  /** @throws Fault `conflict`, `invalid` */
  async create(id: string, plugin: AcmePlugin): Promise<void> {
    check(plugin)
    if (id === own) throw new Fault('conflict', `ACME plugin ID '${id}' already exists`)
    await this.#documents.create(id, plugin)
  }

  /** @throws Fault `missing`, `invalid`; `conflict` when the digest is another */
  async update(
    id: string,
    change: { set: Partial<AcmePlugin>; remove: readonly string[]; digest?: string | undefined },
  ) {
    await this.get(id)
    if (id === own) throw new Fault('conflict', `ACME plugin '${id}' is every node's and cannot be changed`)
    await this.#documents.update(id, (before) => {
      if (change.digest !== undefined && change.digest !== digestOf(before)) {
        throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
      }
      const kept = Object.entries(before).filter(([name]) => !change.remove.includes(name))
      const set = Object.entries(change.set).filter(([, value]) => value !== undefined)
      const after = { ...Object.fromEntries([...kept, ...set]), type: before.type } as AcmePlugin
      check(after)
      return after
    })
  }

  /** @throws Fault `missing` */
  async delete(id: string): Promise<void> {
    await this.get(id)
    if (id === own) throw new Fault('conflict', `ACME plugin '${id}' is every node's and cannot be removed`)
    await this.#documents.delete(id)
  }
}

export function digestOf(plugin: AcmePlugin): string {
  return createHash('sha1')
    .update(JSON.stringify(Object.entries(plugin).toSorted(([a], [b]) => (a < b ? -1 : 1))))
    .digest('hex')
}

function check({ type, api, data }: AcmePlugin): void {
  if (type === 'standalone' && (api ?? data) !== undefined)
    throw invalid({ type: 'a standalone plugin has no interface' })
  if (type === 'dns' && api === undefined)
    throw invalid({ api: 'property is missing: which name server takes changes' })
  if (type === 'dns') settingsOf(data ?? '')
}

/** Lines `NSUPDATE_SERVER=…` of a plugin's data. @throws Fault `invalid` naming what is missing or unknown */
export function settingsOf(data: string): { server: string; port: number; key?: string; zone?: string } {
  const text = Buffer.from(data, 'base64').toString('utf8')
  const values = new Map(
    text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line): [string, string] => [line.split('=', 1)[0]?.trim() ?? '', line.slice(line.indexOf('=') + 1).trim()]),
  )
  const known = ['NSUPDATE_SERVER', 'NSUPDATE_SERVER_PORT', 'NSUPDATE_KEY', 'NSUPDATE_ZONE']
  const unknown = [...values.keys()].find((name) => !known.includes(name))
  const word = (name: string) => {
    const value = values.get(name)
    if (value !== undefined && !/^[\w.:/-]+$/.test(value))
      throw invalid({ data: `${name} has characters nobody expects` })
    return value
  }
  const [server, key, zone] = [word('NSUPDATE_SERVER'), word('NSUPDATE_KEY'), word('NSUPDATE_ZONE')]
  const port = Number(word('NSUPDATE_SERVER_PORT') ?? 53)
  if (unknown !== undefined) throw invalid({ data: `'${unknown}' is none of ${known.join(', ')}` })
  if (server === undefined) throw invalid({ data: 'NSUPDATE_SERVER is missing (base64 of lines NAME=value)' })
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw invalid({ data: 'NSUPDATE_SERVER_PORT is no port' })
  return { server, port, ...(key === undefined ? {} : { key }), ...(zone === undefined ? {} : { zone }) }
}
