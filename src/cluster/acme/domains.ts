/** Which names a node wants in its certificate and how each is proven, as its configuration says. */
import { invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { optional, type PropertyFormat, string } from '#base/schema/schema.ts'
import type { NodeOptions } from '../node-config.ts'

export const acmeFormat: PropertyFormat = {
  account: { schema: optional(string({ format: 'pve-configid', maxLength: 64, default: 'default' })) },
  domains: { schema: optional(string({ format: 'pve-acme-domain-list', maxLength: 4096 })) },
}

export const acmeDomainFormat: PropertyFormat = {
  domain: { schema: string({ format: 'pve-acme-domain', maxLength: 255 }), isDefaultKey: true },
  alias: { schema: optional(string({ format: 'pve-acme-alias', maxLength: 255 })) },
  plugin: { schema: optional(string({ format: 'pve-configid', maxLength: 64, default: 'standalone' })) },
}

export interface WantedName {
  readonly name: string
  readonly plugin: string
  /** Where the record of a dns proof lies instead. */
  readonly alias?: string
}

export interface Wanted {
  readonly account: string
  readonly names: readonly WantedName[]
}

/** @throws Fault `invalid` when there is no name, or one is there twice */
export function wantedOf(options: NodeOptions): Wanted {
  const acme = readPropertyString(acmeFormat, options.acme ?? 'account=default', 'acme')
  const listed = splitList(String(acme.domains ?? '')).map((name): WantedName => ({ name, plugin: 'standalone' }))
  const others = Object.entries(options)
    .filter(([key]) => /^acmedomain\d$/.test(key))
    .map(([key, text]): WantedName => {
      const { domain, alias, plugin = 'standalone' } = readPropertyString(acmeDomainFormat, text, key)
      return { name: String(domain), plugin: String(plugin), ...(alias === undefined ? {} : { alias: String(alias) }) }
    })
  const names = [...listed, ...others]
  if (names.length === 0) {
    throw invalid({ acmedomain0: 'the configuration of the node names no domain for its certificate' })
  }
  const twice = names.find(({ name }, index) => names.findIndex((other) => other.name === name) !== index)
  if (twice) throw invalid({ acmedomain0: `the domain '${twice.name}' is there twice` })
  return { account: String(acme.account ?? 'default'), names }
}
