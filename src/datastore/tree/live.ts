/** Goes through all chunks a tree needs, for whoever wants to know which are needed at all. */
import { Fault } from '#base/fault.ts'
import type { ChunkReader } from '../chunk-reader.ts'
import { kinds, shortIdBytes } from '../format.ts'
import type { ManifestTree } from '../manifest.ts'
import { pieceForm, pieceIds } from './piece.ts'
import { readList, rootOf } from './piece-list.ts'

/**
 * @param needed of a list or a piece: whether it was not seen before. What one that was seen names was seen, too
 * @param content of a chunk
 * @throws Fault `damaged`
 */
export async function markTree(
  chunks: ChunkReader,
  { root }: ManifestTree,
  needed: (id: Buffer) => Promise<boolean>,
  content: (id: Buffer) => Promise<unknown>,
): Promise<void> {
  for (const top of rootOf(root)) {
    if (!(await needed(top))) continue
    for (const list of await readList(chunks, top)) {
      if (!(await needed(list.id))) continue
      for (const { id } of await readList(chunks, list.id)) {
        if (!(await needed(id))) continue
        const ids = await idsIn(chunks, id)
        for (let at = 0; at < ids.length; at += shortIdBytes) await content(ids.subarray(at, at + shortIdBytes))
      }
    }
  }
}

async function idsIn(chunks: ChunkReader, piece: Buffer): Promise<Buffer> {
  const chunk = await chunks.read(piece, kinds.tree)
  chunks.check(piece, chunk)
  try {
    return pieceIds(chunk.content, pieceForm)
  } catch (cause) {
    throw new Fault('damaged', `piece ${piece.toString('hex')} of a tree cannot be read`, { cause })
  }
}
