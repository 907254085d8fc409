/**
 * Gives the memory of a buffer back at once. Chunks come and go by the thousand: left to the collector of garbage, they
 * make it run over everything else again and again (a third of the time of a check, measured).
 *
 * Whoever lets go must be the only one who has it: for everybody else it is empty afterwards. Nothing may be on its way
 * into it either: the kernel would write into memory that is somebody else's by then.
 */

/** Smaller ones share their memory with others. */
const ownBytes = 16 * 1024

export function letGo(buffer: Uint8Array): void {
  const memory = buffer.buffer
  const isItsOwn = buffer.byteOffset === 0 && buffer.byteLength === memory.byteLength && memory.byteLength >= ownBytes
  if (isItsOwn && memory instanceof ArrayBuffer && !memory.detached) memory.transferToFixedLength(0)
}
