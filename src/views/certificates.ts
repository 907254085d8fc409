/** Certificates of a node as clients read them. */
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { array, integer, object, optional, string, type Static } from '#base/schema/schema.ts'
import { readIfPresent } from '#host/files.ts'

export const certificateItem = object({
  filename: string({ description: 'Name of the file.' }),
  fingerprint: string({ description: 'SHA-256, as clients pin it.' }),
  issuer: string({ description: 'Who signed it.' }),
  subject: string({ description: 'Whom it names.' }),
  san: array(string({ description: 'A name or address it is good for.' })),
  notbefore: integer({ description: 'Good from, in seconds since 1970.' }),
  notafter: integer({ description: 'Good until, in seconds since 1970.' }),
  pem: string({ description: 'The certificate.' }),
  'public-key-type': string({ description: 'Kind of key.' }),
  'public-key-bits': optional(integer({ description: 'Size of the key.' })),
})

/** Certificates the API is served with. */
export async function certificates(keysDir: string): Promise<Static<typeof certificateItem>[]> {
  const pem = await readIfPresent(join(keysDir, 'tls.pem'))
  return pem === undefined ? [] : [describe('tls.pem', pem)]
}

/** The one clients of a console are told to trust. */
export async function certificatePem({ stateDir }: { readonly stateDir: string }): Promise<string> {
  return (await readIfPresent(join(stateDir, 'keys', 'tls.pem'))) ?? ''
}

export function describe(filename: string, pem: string): Static<typeof certificateItem> {
  const certificate = new X509Certificate(pem)
  const { asymmetricKeyDetails: details, asymmetricKeyType: kind = 'unknown' } = certificate.publicKey
  const curve = details?.namedCurve
  const bits = details?.modulusLength ?? (curve === undefined ? undefined : bitsOf[curve])
  return {
    filename,
    fingerprint: certificate.fingerprint256,
    issuer: oneLine(certificate.issuer),
    subject: oneLine(certificate.subject),
    san: (certificate.subjectAltName ?? '').split(', ').flatMap((name) => name.split(':').slice(1).join(':') || []),
    notbefore: seconds(certificate.validFromDate),
    notafter: seconds(certificate.validToDate),
    pem: certificate.toString(),
    'public-key-type': kind === 'ec' ? 'id-ecPublicKey' : kind === 'rsa' ? 'rsaEncryption' : kind,
    ...(bits === undefined ? {} : { 'public-key-bits': bits }),
  }
}

const bitsOf: Readonly<Record<string, number>> = { prime256v1: 256, secp384r1: 384, secp521r1: 521 }

const oneLine = (name: string) => `/${name.split('\n').join('/')}`
const seconds = (date: Date) => Math.floor(date.getTime() / 1000)
