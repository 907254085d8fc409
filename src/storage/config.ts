/**
 * The configuration of a storage: the document in the store, its check, and its digest.
 *
 * Options every storage has stand beside the plugin's own, as on the wire; inside they are kept apart, so
 * that a driver sees only what is its own.
 */
import { createHash } from 'node:crypto'
import { invalid } from '#base/fault.ts'
import { readRetention, retentionFormat } from '#base/retention.ts'
import { checkProperties } from '#base/schema/check.ts'
import { splitList } from '#base/schema/formats.ts'
import { boolean, enumOf, integer, optional, propertyString, type Static, string } from '#base/schema/schema.ts'
import { storageId } from '#base/schema/standard.ts'
import type { Json } from '#store/store.ts'
import type { Secrets } from './plugin.ts'
import { pluginOf, storageTypes } from './plugins/all.ts'
import { type ContentType, contentTypes } from './volume.ts'

export const storageType = enumOf(storageTypes, { description: 'Kind of storage.' })

/** Options of every storage. */
export const commonOptions = {
  content: optional(
    string({
      description: 'What it may hold: images, rootdir, iso, vztmpl, snippets, import, backup; or none.',
      format: 'pve-storage-content-list',
      maxLength: 256,
    }),
  ),
  nodes: optional(
    string({ description: 'Nodes that have it; all when absent.', format: 'pve-node-list', maxLength: 4096 }),
  ),
  disable: optional(boolean({ description: 'Leave it alone.' })),
  shared: optional(boolean({ description: 'The same volumes are seen on every node.' })),
  'prune-backups': optional(
    propertyString(retentionFormat, { description: 'Which backups outlast pruning.', maxLength: 256 }),
  ),
  'max-protected-backups': optional(
    integer({
      description:
        'How many backups of a guest may be protected; -1 is no limit, which holds for owners of the storage when absent, and 5 for others.',
      minimum: -1,
      maximum: 1_000_000,
    }),
  ),
}

/** A new storage as the wire spells it: `storage`, `type`, common options and the plugin's own. */
export interface StorageInput {
  readonly storage: string
  readonly type: string
  readonly [option: string]: unknown
}

export interface StorageConfig {
  readonly name: string
  readonly type: Static<typeof storageType>
  readonly content: readonly ContentType[]
  /** Absent: on every node. */
  readonly nodes?: readonly string[]
  readonly isDisabled: boolean
  readonly isShared: boolean
  /** `keep-last=3,keep-daily=7` */
  readonly pruneBackups?: string
  readonly maxProtectedBackups?: number
  /** The plugin's own: `path`, `preallocation`, … */
  readonly options: Readonly<Record<string, string | number | boolean>>
  /** SHA-1 of all of the above. */
  readonly digest: string
}

/** A storage as the store and the wire spell it, `digest` apart. */
export type StorageDocument = Readonly<Record<string, string | number | boolean>>

export interface CheckedStorage {
  /** What may be shown. */
  readonly document: StorageDocument
  readonly secrets: Secrets
}

/** @throws Fault `invalid` naming every wrong field */
export function checkStorage(input: StorageInput): CheckedStorage {
  const type = checkProperties({ type: storageType }, { type: input.type })
  if (!type.ok) throw invalid(type.errors)
  const plugin = pluginOf(input.type)
  const all = checkProperties({ storage: storageId, type: storageType, ...commonOptions, ...plugin.config }, input)
  if (!all.ok) throw invalid(all.errors)
  readRetention(all.values['prune-backups'] ?? '')
  const given = splitList(all.values.content ?? plugin.defaultContent.join(','))
  const refused = given.filter((one) => one !== 'none' && !plugin.content.some((known) => known === one))
  if (refused.length > 0) {
    throw invalid({ content: `a storage of type '${plugin.type}' cannot hold '${refused.join(', ')}'` })
  }
  const content = given.length === 0 ? 'none' : given.join(',')
  const entries: [string, unknown][] = Object.entries({ ...all.values, content })
  const isSecret = ([name]: readonly [string, unknown]) => plugin.config[name]?.isSecret === true
  return {
    document: Object.fromEntries(entries.filter((entry) => !isSecret(entry)).filter(isSimple)),
    secrets: asSecrets(Object.fromEntries(entries.filter(isSecret))),
  }
}

export function asSecrets(value: unknown): Secrets {
  const entries: [string, unknown][] = Object.entries(Object(value) as object)
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
}

function isSimple(entry: [string, unknown]): entry is [string, string | number | boolean] {
  return ['string', 'number', 'boolean'].includes(typeof entry[1])
}

/** Reads a checked document. */
export function configOf(document: StorageDocument): StorageConfig {
  const { storage, type, content, nodes, disable, shared, ...others } = document
  const { 'prune-backups': prune, 'max-protected-backups': maxProtected, ...options } = others
  const plugin = pluginOf(String(type))
  return {
    name: String(storage),
    type: storageTypes.find((one) => one === plugin.type) ?? storageTypes[0],
    content: contentTypes.filter((one) => splitList(String(content)).includes(one)),
    ...(nodes === undefined || nodes === '' ? {} : { nodes: splitList(String(nodes)) }),
    isDisabled: disable === true,
    isShared: shared === true || plugin.features.shared,
    ...(prune === undefined ? {} : { pruneBackups: String(prune) }),
    ...(maxProtected === undefined ? {} : { maxProtectedBackups: Number(maxProtected) }),
    options,
    digest: digestOf(document),
  }
}

function digestOf(document: StorageDocument): string {
  const sorted = Object.entries(document).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha1').update(JSON.stringify(sorted)).digest('hex')
}

/** What the store gives back is what `checkStorage` made. */
export function asDocument(value: Json): StorageDocument {
  return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value).filter(isSimple)) : {}
}
