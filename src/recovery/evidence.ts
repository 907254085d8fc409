/**
 * Evidence: a directory per drill whose every byte is vouched for by one signature.
 *
 *   record.json, console.txt, screen.png, …   what happened
 *   manifest.json                             name, size and SHA-256 of each of those; hash of the evidence before
 *   manifest.sig                              `hakobune-evidence-v1`, SHA-256 of manifest.json, Ed25519 signature over both
 *
 * The signature covers the manifest's hash rather than the manifest, so that a flipped byte can be blamed
 * on the right file: a bad signature means manifest.sig, a good one over another hash means manifest.json.
 * Written into a directory beside and renamed whole: half evidence does not exist.
 *
 * Rejected: one archive file. A directory can be read with `cat` and an image viewer when it matters most.
 */
import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Fault, missing } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { asFileFault, syncDirectory } from '#host/files.ts'

export const evidenceFormat = 'hakobune-evidence-v1'
const [manifestName, signatureName] = ['manifest.json', 'manifest.sig']

export interface EvidenceFile {
  readonly name: string
  readonly sizeBytes: number
  readonly sha256: string
}

export interface EvidenceManifest {
  readonly format: typeof evidenceFormat
  /** Id of the drill, or of the attempt of a plan. */
  readonly drill: string
  readonly node: string
  /** ISO time of signing. */
  readonly signed: string
  /** The evidence before this one on the same node, so that none can be taken out unnoticed. */
  readonly previous?: { readonly drill: string; readonly sha256: string }
  readonly files: readonly EvidenceFile[]
}

export interface EvidenceInput {
  readonly directory: string
  readonly drill: string
  readonly node: string
  readonly signed: string
  readonly files: ReadonlyMap<string, string | Uint8Array>
  readonly key: KeyObject
  readonly previous?: { readonly drill: string; readonly sha256: string } | undefined
  /** Told of the manifest's hash when all is written and nobody can see it yet. */
  readonly beforeVisible?: (hash: string) => Promise<void>
}

const sha256 = (content: string | Uint8Array) => createHash('sha256').update(content).digest('hex')
const statement = (hash: string) => Buffer.from(`${evidenceFormat}\n${hash}\n`)

/**
 * Writes, signs and makes visible.
 * @returns the hash of the manifest, for the next evidence's `previous`
 * @throws Fault `exhausted`, having left nothing
 */
export async function writeEvidence(input: EvidenceInput): Promise<string> {
  await discardUnfinished(input.directory)
  try {
    return await writeWhole(input, unfinishedOf(input.directory))
  } catch (cause) {
    await discardUnfinished(input.directory)
    throw asFileFault(cause, input.directory)
  }
}

/** Removes what a writer that died left of the evidence that was to be `directory`. */
export async function discardUnfinished(directory: string): Promise<void> {
  await rm(unfinishedOf(directory), { recursive: true, force: true })
}

function unfinishedOf(directory: string): string {
  return join(dirname(directory), `.${basename(directory)}.tmp`)
}

async function writeWhole(input: EvidenceInput, temporary: string): Promise<string> {
  await mkdir(temporary, { recursive: true, mode: 0o755 })
  const files: EvidenceFile[] = []
  for (const [name, content] of input.files) {
    if (!isPlainName(name)) throw new Error(`'${name}' is no name for an evidence file`)
    await writeSynced(join(temporary, name), content)
    files.push({ name, sizeBytes: Buffer.byteLength(content), sha256: sha256(content) })
  }
  const { drill, node, signed, previous } = input
  const manifest: EvidenceManifest = {
    format: evidenceFormat,
    drill,
    node,
    signed,
    ...(previous ? { previous } : {}),
    files,
  }
  const text = `${JSON.stringify(manifest, null, 2)}\n`
  const hash = sha256(text)
  await writeSynced(join(temporary, manifestName), text)
  await writeSynced(
    join(temporary, signatureName),
    `${statement(hash).toString()}${sign(null, statement(hash), input.key).toString('base64')}\n`,
  )
  await syncDirectory(temporary)
  await input.beforeVisible?.(hash)
  await rename(temporary, input.directory)
  await syncDirectory(dirname(input.directory))
  return hash
}

/** Hash of a finished evidence's manifest. */
export async function manifestHash(directory: string): Promise<string> {
  return sha256(await readFile(join(directory, manifestName)))
}

export interface EvidenceVerdict {
  readonly ok: boolean
  /** One sentence per file that is not what was signed; the file is named first. */
  readonly complaints: readonly string[]
  readonly manifest?: EvidenceManifest
}

/**
 * Checks a directory with nothing but a public key.
 * @param publicKey PEM of the node's Ed25519 key
 * @throws Fault `missing` when there is no such directory, `invalid` when the key is no Ed25519 public key
 */
export async function verifyEvidence(directory: string, publicKey: string): Promise<EvidenceVerdict> {
  const names = await readdir(directory).catch(() => {
    throw missing('evidence directory', directory)
  })
  const signed = await verifySigned(directory, publicKey)
  if ('complaint' in signed) return { ok: false, complaints: [signed.complaint] }
  const complaints = await complaintsAbout(directory, signed.manifest, names)
  return { ok: complaints.length === 0, complaints, manifest: signed.manifest }
}

/** The manifest alone, and its hash; what it vouches for is not looked at. @throws Fault `invalid` for a wrong key */
export async function verifySigned(
  directory: string,
  publicKey: string,
): Promise<{ readonly manifest: EvidenceManifest; readonly hash: string } | { readonly complaint: string }> {
  const key = readPublicKey(publicKey)
  const signature = await readBounded(directory, signatureName)
  const text = await readBounded(directory, manifestName)
  if (!signature) return { complaint: `${signatureName}: is missing, or larger than evidence may be` }
  if (!text) return { complaint: `${manifestName}: is missing, or larger than evidence may be` }
  const hash = hashFromSignature(signature.toString('latin1'), key)
  if (hash === undefined) return { complaint: `${signatureName}: the signature is not by this key, or was changed` }
  if (hash !== sha256(text)) return { complaint: `${manifestName}: was changed after it was signed` }
  // Signed by the node's key, so its shape is the node's word.
  return { manifest: JSON.parse(text.toString()) as EvidenceManifest, hash }
}

async function complaintsAbout(
  directory: string,
  manifest: EvidenceManifest,
  names: readonly string[],
): Promise<string[]> {
  const complaints: string[] = []
  for (const { name, sha256: wanted, sizeBytes } of manifest.files) {
    const content = await readBounded(directory, name)
    if (!content) complaints.push(`${name}: is missing, or larger than evidence may be`)
    else if (content.length !== sizeBytes)
      complaints.push(`${name}: is ${content.length} bytes, was signed with ${sizeBytes}`)
    else if (sha256(content) !== wanted) complaints.push(`${name}: was changed after it was signed`)
  }
  const known = new Set([manifestName, signatureName, ...manifest.files.map(({ name }) => name)])
  for (const name of names) if (!known.has(name)) complaints.push(`${name}: was not there when this was signed`)
  return complaints
}

/** The hash a good signature vouches for, or nothing. The file must be exactly what signing wrote. */
function hashFromSignature(text: string, key: KeyObject): string | undefined {
  const [format, hash = '', encoded = '', ...rest] = text.split('\n')
  const signature = Buffer.from(encoded, 'base64')
  const isExact =
    format === evidenceFormat && rest.length === 1 && rest[0] === '' && signature.toString('base64') === encoded
  return isExact && verify(null, statement(hash), key, signature) ? hash : undefined
}

function readPublicKey(pem: string): KeyObject {
  try {
    const key = createPublicKey(pem)
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch (cause) {
    throw new Fault('invalid', 'this is not a public key in PEM form', { cause })
  }
  throw new Fault('invalid', 'this is not an Ed25519 public key')
}

async function readBounded(directory: string, name: string): Promise<Buffer | undefined> {
  if (!isPlainName(name)) return undefined
  const path = join(directory, name)
  const facts = await stat(path).catch(() => undefined)
  return facts?.isFile() && facts.size <= limits.evidence.fileBytes ? readFile(path) : undefined
}

async function writeSynced(path: string, content: string | Uint8Array): Promise<void> {
  const file = await open(path, 'wx', 0o644)
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
}

function isPlainName(name: string): boolean {
  return /^[a-z0-9][a-z0-9._-]{0,100}$/i.test(name)
}
