/** Certificates of a node as clients read them. */
import { X509Certificate } from 'node:crypto'
import { array, integer, object, optional, string, type Static } from '#base/schema/schema.ts'
import { certificateFiles, type Certificates } from '#cluster/certificates.ts'

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

/** Every certificate of a node: the one that is served comes last. */
export async function certificateList(certificates: Certificates): Promise<Static<typeof certificateItem>[]> {
  const [own, custom] = [await certificates.own(), await certificates.custom()]
  return [
    describe(certificateFiles.own, own.certificate),
    ...(custom ? [describe(certificateFiles.custom, custom.certificate)] : []),
  ]
}

/** The one clients of a console are told to trust. */
export async function certificatePem(certificates: Certificates): Promise<string> {
  return ((await certificates.custom()) ?? (await certificates.own())).certificate
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
