/**
 * The node's Ed25519 key that signs evidence: made once, private half readable by root alone.
 * The public half lies beside it as `evidence.pub`; that file is all a verifier needs.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { readIfPresent, writeFileAtomic } from '#host/files.ts'
import { madeOnce } from '#host/files/make-once.ts'

export interface NodeKey {
  readonly key: KeyObject
  /** PEM, SPKI. */
  readonly publicKey: string
}

export async function nodeKey(keysDir: string): Promise<NodeKey> {
  const publicPath = join(keysDir, 'evidence.pub')
  // Two drills may be the first at the same moment, and nothing is ever signed with a key that is lost.
  const key = createPrivateKey(await madeOnce(join(keysDir, 'evidence.key'), freshKey))
  // Derived from the private half, so that the two can never disagree.
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()
  if ((await readIfPresent(publicPath)) !== publicKey) await writeFileAtomic(publicPath, publicKey, 0o644)
  return { key, publicKey }
}

function freshKey(): string | Buffer {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
}
