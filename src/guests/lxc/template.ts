/** Puts the files of a template into an empty root directory. */
import { chmod, lchown, lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Host } from '#host/host.ts'
import { type IdMap } from './idmap.ts'

export interface UnpackTemplate {
  readonly archive: string
  readonly rootfs: string
  readonly idMap?: IdMap | undefined
  readonly signal?: AbortSignal | undefined
}

export async function unpackTemplate(host: Host, { archive, rootfs, idMap, signal }: UnpackTemplate): Promise<void> {
  await host.run(['tar', '-x', '--numeric-owner', '-p', '-C', rootfs, '-f', archive], { timeoutMs: 600_000, signal })
  const base = idMap?.[0]?.outside ?? 0
  if (base > 0) await shift(rootfs, base)
}

async function shift(path: string, base: number): Promise<void> {
  const { uid, gid, mode, isDirectory, isSymbolicLink } = await factsOf(path)
  if (uid < base) await lchown(path, uid + base, gid + base)
  if (!isSymbolicLink) await chmod(path, mode)
  if (isDirectory) for (const name of await readdir(path)) await shift(join(path, name), base)
}

async function factsOf(path: string) {
  const found = await lstat(path)
  const { uid, gid, mode } = found
  return { uid, gid, mode: mode & 0o7777, isDirectory: found.isDirectory(), isSymbolicLink: found.isSymbolicLink() }
}
