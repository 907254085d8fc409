/** The 512 bytes before each member of a tar archive, as any program may have written them. */

export const tarBlock = 512

/** Every header carries the sum of its own bytes, its sum taken as blanks. */
export function isTarHeader(header: Buffer): boolean {
  let sum = 8 * 0x20
  for (let index = 0; index < tarBlock; index += 1) {
    if (index < 148 || index >= 156) sum += header[index] ?? 0
  }
  return sum === tarNumber(header, 148, 8)
}

/** Two empty blocks end an archive; one is enough. */
export function isTarEnd(header: Buffer): boolean {
  return header[0] === 0 && header.every((byte) => byte === 0)
}

/** `0` or NUL a file, `1` a hard link, `2` a symbolic one, `3` and `4` devices, `5` a directory, `6` a pipe, … */
export function tarType(header: Buffer): string {
  return String.fromCharCode(header[156] ?? 0)
}

/** Up to the first NUL. */
export function tarText(header: Buffer, from: number, length: number, encoding: 'utf8' | 'latin1' = 'utf8'): string {
  const end = header.indexOf(0, from)
  return header.toString(encoding, from, end < 0 ? from + length : Math.min(end, from + length))
}

export function tarName(header: Buffer, encoding: 'utf8' | 'latin1' = 'utf8'): string {
  const isUstar = header.toString('latin1', 257, 263) === 'ustar\0'
  const prefix = isUstar ? tarText(header, 345, 155, encoding) : ''
  const name = tarText(header, 0, 100, encoding)
  return prefix === '' ? name : `${prefix}/${name}`
}

/** Octal text, or for what does not fit into that a binary number with the first bit set. NaN for neither. */
export function tarNumber(header: Buffer, from: number, length: number): number {
  const first = header[from] ?? 0
  if ((first & 0x80) === 0) {
    const digits = tarText(header, from, length, 'latin1').trim()
    return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : NaN
  }
  // 0xff would begin a negative number.
  if (first !== 0x80) return NaN
  return header.subarray(from + 1, from + length).reduce((value, byte) => value * 256 + byte, 0)
}
