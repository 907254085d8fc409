/**
 * Makes self-signed certificates: ECDSA P-256, with a key of their own. The library that writes them is loaded only
 * then; Node itself reads them.
 */
import type { webcrypto } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'

export interface SelfSignedWish {
  /** `CN=lab, O=Hakobune` */
  readonly subject: string
  readonly names?: { readonly hosts: readonly string[]; readonly addresses: readonly string[] }
  readonly validDays: number
  readonly clock: Clock
  readonly random: Random
}

/** PEM. */
export interface KeyAndCertificate {
  readonly key: string
  readonly certificate: string
}

const dayMs = 24 * 60 * 60 * 1000

export async function makeSelfSigned({
  subject,
  names,
  validDays,
  clock,
  random,
}: SelfSignedWish): Promise<KeyAndCertificate> {
  // The library stores its decorators' facts in this polyfill, and fails without it.
  await import('reflect-metadata')
  const x509 = await import('@peculiar/x509')
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const others = names && [
    ...names.hosts.map((value) => ({ type: 'dns' as const, value })),
    ...names.addresses.map((value) => ({ type: 'ip' as const, value })),
  ]
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(random),
    name: subject,
    notBefore: new Date(clock.now() - dayMs),
    notAfter: new Date(clock.now() + validDays * dayMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      ...(others ? [new x509.SubjectAlternativeNameExtension(others)] : []),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { key: await pem(keys.privateKey), certificate: `${certificate.toString('pem')}\n` }
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
