/** Base32 (RFC 4648), the spelling authenticator apps keep their secrets in. */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** Without padding, as `otpauth://` wants it. */
export function writeBase32(bytes: Uint8Array): string {
  let [text, held, bits] = ['', 0, 0]
  for (const byte of bytes) {
    held = (held << 8) | byte
    bits += 8
    while (bits >= 5) {
      bits -= 5
      text += alphabet.charAt((held >> bits) & 31)
    }
    held &= (1 << bits) - 1
  }
  return bits === 0 ? text : text + alphabet.charAt((held << (5 - bits)) & 31)
}

/** Either case, padded or not; nothing for any other text. Bits left over at the end must be zero, so each value has one text. */
export function readBase32(text: string): Buffer | undefined {
  const letters = text.toUpperCase().replace(/=+$/, '')
  if (!/^[A-Z2-7]*$/.test(letters)) return undefined
  const bytes: number[] = []
  let [held, bits] = [0, 0]
  for (const letter of letters) {
    held = (held << 5) | alphabet.indexOf(letter)
    bits += 5
    if (bits < 8) continue
    bits -= 8
    bytes.push((held >> bits) & 255)
    held &= (1 << bits) - 1
  }
  return bits < 5 && held === 0 ? Buffer.from(bytes) : undefined
}
