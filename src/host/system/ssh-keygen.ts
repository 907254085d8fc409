/** Key pairs of SSH servers, by ssh-keygen: their secret half has a form of its own. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Host } from '../host.ts'

export const keyTypes = ['rsa', 'ecdsa', 'ed25519'] as const
export type KeyType = (typeof keyTypes)[number]

export interface KeyPair {
  readonly secret: string
  readonly open: string
}

/** A fresh pair without a passphrase, as a server needs it. */
export async function newHostKey(host: Host, type: KeyType, comment: string): Promise<KeyPair> {
  const place = await mkdtemp(join(tmpdir(), 'hako-key-'))
  try {
    const path = join(place, 'key')
    await host.run(['ssh-keygen', '-q', '-t', type, '-N', '', '-C', comment, '-f', path])
    return { secret: await readFile(path, 'utf8'), open: await readFile(`${path}.pub`, 'utf8') }
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}
