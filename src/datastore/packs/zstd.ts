/**
 * Zstandard with contexts and room that are kept from one chunk to the next: a fifth of the processor time of unpacking and a
 * twelfth of that of packing goes into making them anew (docs/decisions/kept-zstd-contexts.md).
 *
 * Node's own functions make a context for every call and its streams work through threads; what both are made of can be
 * called by itself, but is no promise. Where it is not as expected, Node's functions do the work.
 */
import { constants, createZstdCompress, createZstdDecompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib'

/** The part of a stream of Node that does the work. */
interface Handle {
  readonly reset: () => void
  readonly writeSync: (
    flush: number,
    input: Uint8Array,
    inputAt: number,
    inputBytes: number,
    output: Uint8Array,
    outputAt: number,
    outputBytes: number,
  ) => void
  onerror: (message: string) => void
}

interface Kept {
  readonly handle: Handle
  /** After a call: bytes of the output that are free, bytes of the input that are left. */
  readonly left: Uint32Array
  failure: string | undefined
}

function kept(stream: object): Kept | undefined {
  const { _handle: handle, _writeState: left } = stream as { _handle?: Handle; _writeState?: unknown }
  if (typeof handle?.writeSync !== 'function' || typeof handle.reset !== 'function') return undefined
  if (!(left instanceof Uint32Array) || left.length !== 2) return undefined
  const one: Kept = { handle, left, failure: undefined }
  handle.onerror = (message) => (one.failure = message)
  return one
}

/** @returns bytes written to the output; nothing when the input was not taken, or is not what it should be */
function run(one: Kept, input: Uint8Array, output: Uint8Array): number | undefined {
  const { handle, left } = one
  one.failure = undefined
  handle.reset()
  handle.writeSync(constants.ZSTD_e_end, input, 0, input.length, output, 0, output.length)
  const [free = 0, unread = 0] = left
  return one.failure === undefined && unread === 0 ? output.length - free : undefined
}

/** Whether nothing more comes. */
function isOver({ handle, left }: Kept): boolean {
  handle.writeSync(constants.ZSTD_e_end, nothing, 0, 0, oneMore, 0, 1)
  return left[0] === 1
}

let room = Buffer.alloc(0)

/** The most that comes of so many bytes, and a little more. */
function bound(bytes: number): number {
  return bytes + (bytes >>> 7) + 512
}

function roomOf(bytes: number): Buffer {
  if (room.length < bytes) room = Buffer.allocUnsafeSlow(bytes)
  return room
}

const packers = new Map<string, Kept | undefined>()

/**
 * @param level 1 to 19
 * @returns a frame, valid until the next call
 */
export function compressed(content: Uint8Array, level: number): Uint8Array {
  // A window no larger than what is compressed: the same result as a larger one has, for less.
  const windowLog = Math.max(10, Math.ceil(Math.log2(Math.max(1, content.length))))
  const params = { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_windowLog]: windowLog }
  const name = `${level} ${windowLog}`
  if (!packers.has(name)) packers.set(name, kept(createZstdCompress({ params })))
  const packer = packers.get(name)
  const output = roomOf(bound(content.length))
  const length = packer && run(packer, content, output)
  if (length !== undefined) return output.subarray(0, length)
  return zstdCompressSync(content, { params, chunkSize: bound(content.length) })
}

let unpacker: Kept | undefined
const nothing = Buffer.alloc(0)
const oneMore = Buffer.alloc(1)

/**
 * @param output takes exactly the content
 * @throws Error when what is packed is something else, or damaged
 */
export function decompressInto(packed: Uint8Array, output: Uint8Array): void {
  unpacker ??= kept(createZstdDecompress())
  if (unpacker && run(unpacker, packed, output) === output.length && isOver(unpacker)) return
  // Node says what is wrong, and the bound keeps a few hostile bytes from growing into gigabytes.
  const content = zstdDecompressSync(packed, {
    maxOutputLength: Math.max(1, output.length),
    chunkSize: Math.max(64, output.length),
  })
  if (content.length !== output.length) {
    throw new Error(`it has ${content.length} bytes instead of ${output.length}`)
  }
  output.set(content)
}
