/**
 * The manifest: what a backup consists of, with the digest of every file of it. Written last; the rename
 * that makes it visible is the commit. Never modified: notes and protection live beside it.
 */
import { diskNamePattern, storedFilePattern } from '#datastore/format.ts'
import { Fault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { array, enumOf, integer, object, optional, record, string, type StaticProperties } from '#base/schema/schema.ts'
import {
  diskMaximumBytes,
  disksMaximum,
  formatVersion,
  indexMaximumBytes,
  storedFileMaximumBytes,
  treeFileMaximumBytes,
  treesVersion,
} from './format.ts'
import { unseal } from '#datastore/sealed.ts'

/** Names of disks and files become file names, so they are strict. */

const digest = string({ pattern: /[0-9a-f]{64}/ })
const count = integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })

const disk = object({
  name: string({ pattern: diskNamePattern }),
  sizeBytes: integer({ minimum: 0, maximum: diskMaximumBytes }),
  /** Tree digest of the content, see `digest.ts`. */
  digest,
  /** The index file `<name>.index`. */
  indexSha256: digest,
  indexBytes: integer({ minimum: 0, maximum: indexMaximumBytes }),
  /** Chunks that are not zero, and their bytes. */
  chunks: count,
  dataBytes: count,
  /** Chunks no earlier backup had, and what they take in packs. */
  newChunks: count,
  newStoredBytes: count,
})

const tree = object({
  name: string({ pattern: diskNamePattern }),
  /** Of the catalogue: SHA-256 over the digests of its pieces, in order. It pins every fact and all content. */
  digest,
  /** The file `<name>.tree`. */
  treeSha256: digest,
  treeBytes: integer({ minimum: 0, maximum: treeFileMaximumBytes }),
  /** Of the catalogue. */
  pieces: count,
  entries: count,
  files: count,
  /** Content without holes; that of a file with several names once. */
  dataBytes: count,
  /** Chunks no earlier backup had, and what they take in packs. */
  newChunks: count,
  newStoredBytes: count,
  /** Files that were not read, because nothing had changed since an earlier backup. */
  reusedFiles: count,
  /** The highest ids inside that anything belongs to: a map has to reach so far. */
  highestUid: count,
  highestGid: count,
  /** The map the ids were read through, `[]` without one: it tells whether access lists can be taken over. */
  ids: string({ maxLength: 16_384 }),
})

const storedFile = object({
  name: string({ pattern: storedFilePattern }),
  sha256: digest,
  sizeBytes: integer({ minimum: 0, maximum: storedFileMaximumBytes }),
})

const properties = {
  format: integer({ minimum: 1, maximum: 65_535 }),
  type: enumOf(['vm', 'ct', 'host']),
  id: string({ maxLength: 63 }),
  /** The moment in the backup's name, seconds since 1970: when it began. */
  time: integer({ minimum: 0, maximum: 253_402_300_799 }),
  /** The moment the data is from, to the millisecond: `2026-11-20T10:00:01.250Z`. */
  pointInTime: string({ pattern: /\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z/ }),
  /** When the backup was complete, seconds since 1970. */
  finished: integer({ minimum: 0, maximum: 253_402_300_799 }),
  disks: array(disk),
  /** In format 2, and nowhere else. */
  trees: optional(array(tree)),
  files: array(storedFile),
  /** What the maker wants to remember: freeze verdict, modes, versions. */
  facts: record(),
}

export type Manifest = StaticProperties<typeof properties>
export type ManifestDisk = Manifest['disks'][number]
export type ManifestTree = NonNullable<Manifest['trees']>[number]
export type ManifestFile = Manifest['files'][number]

/** @throws Fault `damaged` naming the file, or `invalid` when a newer version wrote it */
export function parseManifest(text: string, name: string): Manifest {
  const value = unseal(text, name)
  if (typeof value !== 'object' || value === null) throw new Fault('damaged', `${name} is damaged: it is no object`)
  const isOurs = (format: number) => format === formatVersion || format === treesVersion
  if ('format' in value && typeof value.format === 'number' && !isOurs(value.format)) {
    throw new Fault('invalid', `${name} has format ${value.format}; this version reads format 1 and 2`, {
      remedy: 'Use the version of Hakobune that wrote it, or a newer one.',
    })
  }
  const checked = checkProperties(properties, value as Record<string, unknown>)
  if (!checked.ok) {
    const wrong = Object.entries(checked.errors).map(([field, text_]) => `${field}: ${text_}`)
    throw new Fault('damaged', `${name} is damaged: ${wrong.join('; ')}`)
  }
  const { format, disks, files, trees } = checked.values
  const parts = [...disks, ...files, ...(trees ?? [])]
  if (parts.length > 3 * disksMaximum || new Set(parts.map((part) => part.name)).size !== parts.length) {
    throw new Fault('damaged', `${name} is damaged: too many disks or files, or two of one name`)
  }
  if ((format === treesVersion) !== (trees !== undefined)) {
    throw new Fault('damaged', `${name} is damaged: format ${format} ${trees ? 'has no' : 'has'} trees`)
  }
  return checked.values
}

export function treesOf(manifest: Manifest): readonly ManifestTree[] {
  return manifest.trees ?? []
}

export function dataBytesOf(manifest: Manifest): number {
  return [...manifest.disks, ...treesOf(manifest)].reduce((sum, { dataBytes }) => sum + dataBytes, 0)
}
