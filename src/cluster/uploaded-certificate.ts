/**
 * A certificate somebody brings: its chain and key are read and held against each other before anything is kept.
 *
 * What TLS clients would refuse is refused here, where there is somebody to tell: a key of another certificate, a
 * chain in the wrong order, a certificate that has ended or has not begun, a key too weak for the library that serves it.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import type { Clock } from '#base/clock.ts'
import { invalid, messageOf } from '#base/fault.ts'

export interface UploadedCertificate {
  /** PEM: the certificate, then those that vouch for it. */
  readonly certificate: string
  /** PEM, PKCS #8. */
  readonly key: string
}

/** A chain is a handful; this leaves room for strange ones. */
const longestChain = 10
const block = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g

/** @throws Fault `invalid` naming the parameter and what is wrong with it */
export function checkUploaded(certificates: string, keyText: string, clock: Clock): UploadedCertificate {
  const chain = parseChain(certificates)
  const key = parseKey(keyText)
  // `parseChain` returns at least one.
  const [leaf] = chain as [X509Certificate]
  if (!leaf.checkPrivateKey(key)) throw invalid({ key: 'the key is not the one of the first certificate' })
  requireOrder(chain)
  for (const [index, certificate] of chain.entries()) requireInForce(certificate, index, clock)
  const uploaded = {
    certificate: chain.map((one) => one.toString()).join(''),
    key: key.export({ format: 'pem', type: 'pkcs8' }).toString(),
  }
  requireServable(uploaded)
  return uploaded
}

function parseChain(text: string): X509Certificate[] {
  const blocks = text.match(block) ?? []
  if (blocks.length === 0) throw invalid({ certificates: 'there is no PEM certificate in it' })
  if (blocks.length > longestChain) {
    throw invalid({ certificates: `there are ${blocks.length} certificates in it: at most ${longestChain} are taken` })
  }
  if (/-----BEGIN (?!CERTIFICATE-----)/.test(text)) {
    throw invalid({
      certificates: 'there is something else than certificates in it; the key has a parameter of its own',
    })
  }
  return blocks.map((one, index) => {
    try {
      return new X509Certificate(one)
    } catch (cause) {
      throw invalid({ certificates: `certificate ${index + 1} cannot be read: ${messageOf(cause)}` }, { cause })
    }
  })
}

/** The cause stays away from the log: it may repeat parts of the key. */
function parseKey(text: string): KeyObject {
  try {
    return createPrivateKey(text)
  } catch {
    const isLocked = /ENCRYPTED/.test(text)
    throw invalid({
      key: isLocked
        ? 'the key is protected by a pass phrase, which nobody could type here'
        : 'it is no PEM private key',
    })
  }
}

function requireOrder(chain: readonly X509Certificate[]): void {
  const wrong = chain.findIndex((certificate, index) => {
    const issuer = chain[index + 1]
    return issuer !== undefined && !(certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey))
  })
  if (wrong < 0) return
  throw invalid({ certificates: `certificate ${wrong + 2} is not the one that signed certificate ${wrong + 1}` })
}

function requireInForce({ validFromDate, validToDate }: X509Certificate, index: number, clock: Clock): void {
  const now = clock.now()
  const [from, to] = [validFromDate, validToDate].map((date) => date.toISOString())
  if (validToDate.getTime() <= now) throw invalid({ certificates: `certificate ${index + 1} ended at ${to}` })
  if (validFromDate.getTime() > now) throw invalid({ certificates: `certificate ${index + 1} begins only at ${from}` })
}

function requireServable({ key, certificate }: UploadedCertificate): void {
  try {
    createSecureContext({ key, cert: certificate, minVersion: 'TLSv1.2' })
  } catch (cause) {
    throw invalid({ certificates: `it cannot be served: ${messageOf(cause)}` })
  }
}
