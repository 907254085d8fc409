/** Goes through all chunks a tree needs, for whoever wants to know which are needed at all. */
import { Fault } from '#base/fault.ts'
import type { ChunkReader } from '../chunks/chunk-reader.ts'
import { kinds } from '../format.ts'
import type { ManifestTree } from '../points/manifest.ts'
import { pieceForm, pieceIds } from './piece.ts'
import { readList, rootOf } from './piece-list.ts'

/** What is known of chunks. */
export interface ChunkMarks {
  /** Everything it leads to was marked. */
  readonly isDone: (id: Buffer) => boolean
  readonly done: (id: Buffer) => void
  /** @throws Fault `damaged` when it is nowhere */
  readonly need: (id: Buffer) => Promise<void>
  /** @param ids one behind another */
  readonly needAll: (ids: Buffer) => Promise<void>
}

/** @throws Fault `damaged` */
export async function markTree(chunks: ChunkReader, { root }: ManifestTree, marks: ChunkMarks): Promise<void> {
  for (const top of rootOf(root))
    await markList(chunks, top, marks, (list) => {
      return markList(chunks, list, marks, (piece) => markPiece(chunks, piece, marks))
    })
}

async function markList(
  chunks: ChunkReader,
  list: Buffer,
  marks: ChunkMarks,
  mark: (id: Buffer) => Promise<void>,
): Promise<void> {
  if (marks.isDone(list)) return
  await marks.need(list)
  for (const { id } of await readList(chunks, list)) await mark(id)
  marks.done(list)
}

async function markPiece(chunks: ChunkReader, piece: Buffer, marks: ChunkMarks): Promise<void> {
  if (marks.isDone(piece)) return
  await marks.need(piece)
  await marks.needAll(await idsIn(chunks, piece))
  marks.done(piece)
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
