/** How much of a disk differs between two backups, by their maps alone: nothing of the disks is read. */
import { shortIdBytes } from '../format.ts'
import type { DiskMap } from './disk-map.ts'

/** @returns chunks that are not the same at the same place; what only one of them has is different. @throws Fault `damaged` */
export async function differentChunks(before: DiskMap, after: DiskMap): Promise<number> {
  let different = Math.abs(after.chunks - before.chunks)
  for (let piece = 0; piece < Math.min(before.pieces, after.pieces); piece += 1) {
    if (before.pieceId(piece).equals(after.pieceId(piece))) continue
    const [{ ids: old }, { ids }] = [await before.piece(piece), await after.piece(piece)]
    for (let at = 0; at < Math.min(old.length, ids.length); at += shortIdBytes) {
      if (old.compare(ids, at, at + shortIdBytes, at, at + shortIdBytes) !== 0) different += 1
    }
  }
  return different
}
