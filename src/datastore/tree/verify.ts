/** Goes through a tree as a restore would, without writing: pieces, the chunks they name, and sums. */
import type { Fault } from '#base/fault.ts'
import type { TreeReader } from './reader.ts'
import { extentsAt } from './record.ts'

export interface ChunkOfTree {
  readonly id: Buffer
  /** Of content it stands for. */
  readonly bytes: number
}

/**
 * Chunks of content, of each piece those it names.
 * @param onDamage of a piece; its entries cannot be looked at
 * @throws Fault `damaged` when its pieces are not those the manifest tells of
 */
export async function* chunksOfTree(tree: TreeReader, onDamage: (damage: Fault) => void): AsyncGenerator<ChunkOfTree> {
  await tree.requireDigest()
  for await (const { piece } of tree.pieces(onDamage)) {
    const bytes = new Float64Array(piece.chunks)
    for (const { kind, at } of piece.records()) {
      if (kind === 'folder') continue
      for (const { chunk, length } of extentsAt(piece.bytes, at)) bytes[chunk] = (bytes[chunk] ?? 0) + length
    }
    for (let chunk = 0; chunk < piece.chunks; chunk += 1) yield { id: piece.idOf(chunk), bytes: bytes[chunk] ?? 0 }
  }
}
