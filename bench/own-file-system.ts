/**
 * A fresh file system for what is measured: ext4 as its tools make it, in a file. On the one of the machine thousands of
 * files may just have been deleted, and an ext4 without a journal then looks past each of them, for minutes, whenever it
 * makes another file: a tree took ten times as long.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { GiB } from '#base/bytes.ts'

/** Holes are not stored: it takes what is written to it. */
const sizeBytes = 16 * GiB

export function ownFileSystem(): { readonly path: string } & Disposable {
  const folder = mkdtempSync('/var/tmp/hako-disk-')
  const [image, path] = [join(folder, 'image'), join(folder, 'mounted')]
  using undo = new DisposableStack()
  undo.defer(() => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o711)
  writeFileSync(image, '')
  truncateSync(image, sizeBytes)
  mkdirSync(path)
  execFileSync('mkfs.ext4', ['-q', image])
  execFileSync('mount', ['-o', 'loop', image, path])
  // Those who go on looking at it, such as a server of files, do not hold it up.
  undo.defer(() => void execFileSync('umount', ['--lazy', path]))
  const release = undo.move()
  return { path, [Symbol.dispose]: () => release.dispose() }
}
