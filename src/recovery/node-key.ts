/**
 * The node's Ed25519 key that signs evidence: made once, private half readable by root alone.
 * The public half lies beside it as `evidence.pub`; that file is all a verifier needs.
 *
 * Two drills may be the first at the same moment. The key gets its name by `link`, which fails where there is
 * one: whoever comes second uses the key of the first, and nothing is ever signed with a key that is lost.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { link, mkdir, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { asFileFault, codeOf, readIfPresent, syncDirectory, writeFileAtomic } from '#host/files.ts'

export interface NodeKey {
  readonly key: KeyObject
  /** PEM, SPKI. */
  readonly publicKey: string
}

export async function nodeKey(keysDir: string): Promise<NodeKey> {
  const path = join(keysDir, 'evidence.key')
  const publicPath = join(keysDir, 'evidence.pub')
  await mkdir(keysDir, { recursive: true, mode: 0o700 })
  const key = createPrivateKey((await readIfPresent(path)) ?? (await make(path)))
  // Derived from the private half, so that the two can never disagree.
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()
  if ((await readIfPresent(publicPath)) !== publicKey) await writeFileAtomic(publicPath, publicKey, 0o644)
  return { key, publicKey }
}

/** Makes the key unless another process just has. @returns the one that counts, as PEM */
async function make(path: string): Promise<string> {
  const fresh = `${path}.new`
  const key = generateKeyPairSync('ed25519').privateKey
  await writeFileAtomic(fresh, key.export({ type: 'pkcs8', format: 'pem' }), 0o600)
  try {
    await link(fresh, path)
    await syncDirectory(dirname(path))
  } catch (cause) {
    // With ENOENT another one has taken the fresh file away, having linked it or found a key there.
    if (!['EEXIST', 'ENOENT'].includes(codeOf(cause) ?? '')) throw asFileFault(cause, path)
  }
  await rm(fresh, { force: true })
  return readFile(path, 'utf8')
}
