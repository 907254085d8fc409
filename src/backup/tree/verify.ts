/** Goes through a tree as a restore would, without writing: pieces, the chunks they name, and sums. */
import { createHash } from 'node:crypto'
import type { Fault } from '#base/fault.ts'
import type { StoredChunk } from '../index-file.ts'
import type { TreeReader } from './reader.ts'
import { extentsAt } from './record.ts'

/**
 * @param check of a chunk, and how many bytes of content it stands for
 * @param onDamage of a piece; its entries cannot be looked at
 * @throws Fault `damaged` when all pieces are sound and are not those the manifest tells of
 */
export async function verifyTree(
  tree: TreeReader,
  check: (chunk: StoredChunk, bytes: number) => Promise<void>,
  onDamage: (damage: Fault) => Promise<void>,
): Promise<void> {
  const damages: Fault[] = []
  const hash = createHash('sha256')
  for await (const { entry, piece } of tree.pieces((damage) => damages.push(damage))) {
    while (damages.length > 0) await onDamage(damages.shift() as Fault)
    hash.update(entry.digest)
    const bytes = new Float64Array(piece.chunks)
    for (const { kind, at } of piece.records()) {
      if (kind === 'folder') continue
      for (const { chunk, length } of extentsAt(piece.bytes, at)) bytes[chunk] = (bytes[chunk] ?? 0) + length
    }
    for (let chunk = 0; chunk < piece.chunks; chunk += 1) {
      await check({ ...entry.placeOf(chunk), digest: piece.digestOf(chunk) }, bytes[chunk] ?? 0)
    }
  }
}
