/**
 * The node's certificate: self-signed, ECDSA P-256, made once and kept.
 *
 * A new one is made when there is none, when it is about to end, or when the node got another name. The key
 * never leaves its file (mode 0600) except through the pipe to the front. The library that writes
 * certificates is loaded only then; Node itself reads them.
 */
import { createPrivateKey, type webcrypto, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Random, systemRandom } from '#base/random.ts'
import { makeDirectory, readIfPresent, writeFileAtomic } from '#host/files.ts'

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
  // The library stores its decorators' facts in this polyfill, and fails without it.
  await import('reflect-metadata')
  const x509 = await import('@peculiar/x509')
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(random),
    name: `CN=${node}, O=Hakobune`,
    notBefore: new Date(clock.now() - dayMs),
    notAfter: new Date(clock.now() + validDays * dayMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([
        ...namesFor(node).map((value) => ({ type: 'dns' as const, value })),
        ...[...new Set(['127.0.0.1', '::1', ...addresses])].map((value) => ({ type: 'ip' as const, value })),
      ]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  const text = certificate.toString('pem')
  return { key: await pem(keys.privateKey), certificate: `${text}\n`, fingerprint: fingerprintOf(text) }
}

/** Positive, and so without its top bit. */
function serialNumber(random: Random): string {
  const [first = 0, ...rest] = random.bytes(16)
  return Buffer.from([(first & 0x3f) | 0x40, ...rest]).toString('hex')
}

async function pem(key: webcrypto.CryptoKey): Promise<string> {
  const bytes = Buffer.from(await crypto.subtle.exportKey('pkcs8', key)).toString('base64')
  return `-----BEGIN PRIVATE KEY-----\n${bytes.replace(/(.{64})/g, '$1\n').trimEnd()}\n-----END PRIVATE KEY-----\n`
}
