/** Who has signed a text: `gpgv`, which knows the keys of one file and nothing else. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Host } from '../host.ts'

export interface Signed {
  readonly text: Uint8Array
  /** Detached, in either form. */
  readonly signature: Uint8Array
  /** Absolute path of a file with the public keys, in binary form. */
  readonly keyring: string
  /** For the files `gpgv` reads; nothing stays there. */
  readonly directory: string
}

/** @throws Fault `denied` unless one of the keys has signed exactly this */
export async function requireSignature(host: Host, { text, signature, keyring, directory }: Signed): Promise<void> {
  const place = await mkdtemp(join(directory, '.signature-'))
  try {
    const [signed, proof] = [join(place, 'text'), join(place, 'signature')]
    await writeFile(signed, text)
    await writeFile(proof, signature)
    await host.run(['gpgv', '--quiet', '--homedir', place, '--keyring', keyring, proof, signed], { timeoutMs: 30_000 })
  } catch (cause) {
    if (!isFault(cause, 'failed')) throw cause
    throw new Fault('denied', `the signature does not hold: ${messageOf(cause)}`, {
      cause,
      remedy: `The keys in '${keyring}' are trusted; they must be in binary form (gpg --export).`,
    })
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}
