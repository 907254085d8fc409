/**
 * The node's certificate: self-signed, ECDSA P-256, made once and kept.
 *
 * A new one is made when there is none, when it is about to end, or when the node got another name. The key
 * never leaves its file (mode 0600) except through the pipe to the front.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Random, systemRandom } from '#base/random.ts'
import { makeDirectory, readIfPresent, writeFileAtomic } from '#host/files.ts'
import { makeSelfSigned } from '#host/web/self-signed.ts'

export interface CertificateOptions {
  readonly directory: string
  /** Name of the node; `localhost` and the loopback addresses are always in it. */
  readonly node: string
  /** Further addresses the API is reached at. */
  readonly addresses?: readonly string[]
  readonly clock?: Clock
  readonly random?: Random
}

export interface ServerCertificate {
  /** PEM. */
  readonly key: string
  /** PEM. */
  readonly certificate: string
  /** `AA:BB:…`, SHA-256, as clients pin it. */
  readonly fingerprint: string
}

const dayMs = 24 * 60 * 60 * 1000
/** Browsers refuse leaf certificates that last longer than 825 days. */
const validDays = 820
const renewBeforeDays = 30

/** The stored certificate, or a new one. */
export async function ensureCertificate(options: CertificateOptions): Promise<ServerCertificate> {
  const { directory, clock = systemClock } = options
  await makeDirectory(directory, 0o700)
  const stored = await readStored(directory)
  if (stored && isGoodFor(stored, options, clock)) return stored
  const made = await make(options)
  await writeFileAtomic(join(directory, 'tls.key'), made.key, 0o600)
  await writeFileAtomic(join(directory, 'tls.pem'), made.certificate, 0o644)
  return made
}

async function readStored(directory: string): Promise<ServerCertificate | undefined> {
  const [key, certificate] = await Promise.all([
    readIfPresent(join(directory, 'tls.key')),
    readIfPresent(join(directory, 'tls.pem')),
  ])
  if (key === undefined || certificate === undefined) return undefined
  return { key, certificate, fingerprint: fingerprintOf(certificate) }
}

export function fingerprintOf(certificate: string): string {
  return new X509Certificate(certificate).fingerprint256
}

function isGoodFor(
  { key, certificate }: ServerCertificate,
  { node, addresses = [] }: CertificateOptions,
  clock: Clock,
): boolean {
  const parsed = new X509Certificate(certificate)
  const lasts = parsed.validToDate.getTime() - clock.now() > renewBeforeDays * dayMs
  const names = namesFor(node).every((name) => parsed.checkHost(name) !== undefined)
  const reached = addresses.every((address) => parsed.checkIP(address) !== undefined)
  return lasts && names && reached && parsed.checkPrivateKey(createPrivateKey(key))
}

const namesFor = (node: string): string[] => [...new Set(['localhost', node.toLowerCase()])]

async function make({
  node,
  addresses = [],
  clock = systemClock,
  random = systemRandom,
}: CertificateOptions): Promise<ServerCertificate> {
  const names = { hosts: namesFor(node), addresses: [...new Set(['127.0.0.1', '::1', ...addresses])] }
  const subject = `CN=${node}, O=Hakobune`
  const made = await makeSelfSigned({ subject, names, validDays, clock, random })
  return { ...made, fingerprint: fingerprintOf(made.certificate) }
}
