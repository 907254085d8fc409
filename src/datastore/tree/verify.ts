/** Goes through a tree as a restore would, without writing: pieces, the chunks they name, and sums. */
import type { Fault } from '#base/fault.ts'
import type { OpenPiece } from './catalogue.ts'
import type { TreeReader } from './reader.ts'
import { extentsAt } from './record.ts'

/** Of a chunk of a piece, and how many bytes of content it stands for. */
export type PieceCheck = (open: OpenPiece, chunk: number, bytes: number) => Promise<void>

/**
 * @param check of a chunk of a piece, and how many bytes of content it stands for
 * @param onDamage of a piece; its entries cannot be looked at
 * @throws Fault `damaged` when its pieces are not those the manifest tells of
 */
export async function verifyTree(
  tree: TreeReader,
  check: PieceCheck,
  onDamage: (damage: Fault) => void | Promise<void>,
): Promise<void> {
  await tree.requireDigest()
  const damages: Fault[] = []
  for await (const open of tree.pieces((damage) => damages.push(damage))) {
    const { piece } = open
    for (const damage of damages.splice(0)) await onDamage(damage)
    const bytes = new Float64Array(piece.chunks)
    for (const { kind, at } of piece.records()) {
      if (kind === 'folder') continue
      for (const { chunk, length } of extentsAt(piece.bytes, at)) bytes[chunk] = (bytes[chunk] ?? 0) + length
    }
    for (let chunk = 0; chunk < piece.chunks; chunk += 1) {
      await check(open, chunk, bytes[chunk] ?? 0)
    }
  }
  for (const damage of damages) await onDamage(damage)
}
