/**
 * TLS of a guest's SPICE: a key and a certificate for this one run, made when the guest starts.
 *
 * TLS goes from the viewer to QEMU, so nobody in between can read along, and no guest's process ever holds a key of
 * the node's. Viewers are told the certificate together with their ticket. Ending TLS in the front was tried: viewers
 * hang when it puts two messages of SPICE into one record, as whoever carries bytes will.
 */
import { systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import type { Vmid } from '#base/ids.ts'
import { makeSelfSigned } from '#host/web/self-signed.ts'
import type { Options } from '../config.ts'
import { hasSpice } from './vga.ts'

/** In the guest's run directory, under the names QEMU looks for. Its key goes as soon as QEMU has read it. */
export const spiceKeyFile = 'server-key.pem'
const certificateFiles = ['server-cert.pem', 'ca-cert.pem'] as const

/** A guest may run for years. */
const validDays = 3_650

export interface SpiceTls {
  /** By name, what is to be in the run directory. */
  readonly files: Readonly<Record<string, string>>
  /** PEM; absent for a guest without SPICE. */
  readonly spiceCertificate?: string
}

export async function makeSpiceTls(vmid: Vmid, options: Options): Promise<SpiceTls> {
  if (!hasSpice(options)) return { files: {} }
  const subject = `CN=VM ${vmid}, O=Hakobune`
  const { key, certificate } = await makeSelfSigned({ subject, validDays, clock: systemClock, random: systemRandom })
  const certificates = Object.fromEntries(certificateFiles.map((name) => [name, certificate]))
  return { files: { [spiceKeyFile]: key, ...certificates }, spiceCertificate: certificate }
}
