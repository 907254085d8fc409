/**
 * The node's Ed25519 key that signs evidence: made once, private half readable by root alone.
 * The public half lies beside it as `evidence.pub`; that file is all a verifier needs.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfPresent, writeFileAtomic } from '#host/files.ts'

export interface NodeKey {
  readonly key: KeyObject
  /** PEM, SPKI. */
  readonly publicKey: string
}

export async function nodeKey(keysDir: string): Promise<NodeKey> {
  const path = join(keysDir, 'evidence.key')
  const publicPath = join(keysDir, 'evidence.pub')
  const kept = await readIfPresent(path)
  const key = kept === undefined ? generateKeyPairSync('ed25519').privateKey : createPrivateKey(kept)
  // Derived from the private half, so that the two can never disagree.
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()
  await mkdir(keysDir, { recursive: true, mode: 0o700 })
  if (kept === undefined) await writeFileAtomic(path, key.export({ type: 'pkcs8', format: 'pem' }), 0o600)
  if ((await readIfPresent(publicPath)) !== publicKey) await writeFileAtomic(publicPath, publicKey, 0o644)
  return { key, publicKey }
}
