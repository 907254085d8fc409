/**
 * The chain of a node's evidence: each names the one that was signed before it, so that none can be taken out unnoticed.
 *
 *   <id>/manifest.json   `previous`: which was signed before, and the hash of its manifest
 *   .newest.json         which was signed last; and, while evidence gets its name, which is `coming`
 *
 * Who signs holds the folder's lock from reading what was last until the new one has its name, so two never name the
 * same predecessor. A writer that dies in between leaves `coming`, and whether that came is seen by looking for it.
 * That the newest was taken out is told by `.newest.json` alone; a copy without that file proves the others.
 */
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, isUnfinishedFile, readIfPresent, writeFileAtomic } from '#host/files.ts'
import { holdFolder } from '#host/files/folder-lock.ts'
import { type EvidenceManifest, manifestHash, verifySigned } from './evidence.ts'

export interface Link {
  readonly drill: string
  /** Of its manifest. */
  readonly sha256: string
}

interface Newest {
  readonly newest?: Link
  readonly coming?: Link
}

export interface ChainVerdict {
  readonly ok: boolean
  /** One sentence per break; the evidence is named first. */
  readonly complaints: readonly string[]
  /** How many are in it. */
  readonly evidence: number
}

const newestName = '.newest.json'
/** Longer than any evidence takes to be written, however many wait. */
const waitMs = 120_000

/**
 * Holds the chain while evidence is added to it.
 * @param add writes the evidence that names `previous`, and awaits `announce` before it gets its name
 */
export async function extendChain(
  folder: string,
  add: (previous: Link | undefined, announce: (coming: Link) => Promise<void>) => Promise<Link>,
): Promise<void> {
  // A console or a screen may show what is not everybody's.
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await using _lock = await holdFolder(folder, { timeoutMs: waitMs })
  const newest = await lastSigned(folder)
  const added = await add(newest, (coming) => write(folder, { ...(newest ? { newest } : {}), coming }))
  await write(folder, { newest: added })
}

/** Removes what a writer that died left beside the chain. */
export async function discardUnfinishedLinks(folder: string): Promise<void> {
  const unfinished = async () => (await readdir(folder).catch(() => [])).filter(isUnfinishedFile)
  if ((await unfinished()).length === 0) return
  // Nobody writes there while it is held.
  await using _lock = await holdFolder(folder, { timeoutMs: waitMs })
  for (const name of await unfinished()) await rm(join(folder, name), { force: true })
}

async function write(folder: string, state: Newest): Promise<void> {
  await writeFileAtomic(join(folder, newestName), `${JSON.stringify(state)}\n`)
}

/** What is named stays what was signed last, even if somebody has damaged it: its hash is known. */
async function lastSigned(folder: string): Promise<Link | undefined> {
  const { newest, coming } = (await readNewest(folder)) ?? { newest: await newestByTime(folder) }
  return coming && (await hashOf(folder, coming.drill)) === coming.sha256 ? coming : newest
}

async function readNewest(folder: string): Promise<Newest | undefined> {
  const text = await readIfPresent(join(folder, newestName))
  try {
    // Written by us alone, in one act.
    return text === undefined ? undefined : (JSON.parse(text) as Newest)
  } catch {
    // What somebody damaged must not keep new evidence from being written.
    return undefined
  }
}

/** Where it is not written down. */
async function newestByTime(folder: string): Promise<Link | undefined> {
  const all = await Promise.all(
    (await evidenceIn(folder)).map(async (drill) => ({ drill, at: (await stat(join(folder, drill))).mtimeMs })),
  )
  for (const { drill } of all.toSorted((a, b) => b.at - a.at)) {
    const sha256 = await hashOf(folder, drill)
    if (sha256 !== undefined) return { drill, sha256 }
  }
  return undefined
}

async function hashOf(folder: string, drill: string): Promise<string | undefined> {
  try {
    return await manifestHash(join(folder, drill))
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return undefined
    throw cause
  }
}

/** Names of all evidence, the oldest first: they begin with their time. */
export async function evidenceIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [])
  return names.filter((name) => !name.startsWith('.')).toSorted()
}

/**
 * Whether all evidence in a folder is one chain without a break: one beginning, one end, nothing named that is not there
 * or was changed. Of each the manifest is looked at; what else belongs to it is its own to prove.
 * @param publicKey PEM of the node's Ed25519 key
 */
export async function verifyChain(folder: string, publicKey: string): Promise<ChainVerdict> {
  const complaints: string[] = []
  const [manifests, hashes] = [new Map<string, EvidenceManifest>(), new Map<string, string>()]
  const names = await evidenceIn(folder)
  for (const name of names) {
    const signed = await verifySigned(join(folder, name), publicKey)
    if ('complaint' in signed) complaints.push(`${name}: ${signed.complaint}`)
    else if (signed.manifest.drill !== name) complaints.push(`${name}: was signed as ${signed.manifest.drill}`)
    else {
      manifests.set(name, signed.manifest)
      hashes.set(name, signed.hash)
    }
  }
  const followers = new Map<string, string>()
  let first: string | undefined
  for (const [name, { previous }] of manifests) {
    if (!previous) {
      if (first !== undefined) complaints.push(`${name}: begins a second chain beside ${first}`)
      first ??= name
      continue
    }
    const other = followers.get(previous.drill)
    if (other !== undefined) complaints.push(`${name}: names ${previous.drill} as the one before, as ${other} does`)
    followers.set(previous.drill, name)
    const why = whyBroken(previous, names, hashes)
    if (why !== undefined) complaints.push(`${name}: names ${previous.drill} as the one before, which ${why}`)
  }
  const { newest } = (await readNewest(folder)) ?? {}
  if (newest && !names.includes(newest.drill)) complaints.push(`${newest.drill}: was signed last, and is missing`)
  return { ok: complaints.length === 0, complaints, evidence: names.length }
}

function whyBroken(previous: Link, names: readonly string[], hashes: ReadonlyMap<string, string>): string | undefined {
  if (!names.includes(previous.drill)) return 'is missing'
  const hash = hashes.get(previous.drill)
  // What is wrong with that one is said of it.
  return hash === undefined || hash === previous.sha256 ? undefined : 'is another than was signed then'
}
