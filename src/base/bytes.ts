/** Sizes in bytes, and texts of them. */
import { Fault } from './fault.ts'

export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB
export const TiB = 1024 * GiB

const factors: Readonly<Record<string, number>> = { '': 1, K: KiB, M: MiB, G: GiB, T: TiB }

/**
 * Reads a PVE disk size (`32G`, `528K`, `1.5T`, `4194304`) into bytes.
 * @throws Fault `invalid` when the text is no size.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?$/.exec(text)
  if (!match) throw new Fault('invalid', `'${text}' is not a size such as 32G or 512M`)
  return Math.ceil(Number(match[1]) * (factors[match[2] ?? ''] ?? 1))
}

/** The shortest exact PVE size: `32G`, `528K`, or plain bytes when no unit divides it. */
export function formatSize(sizeBytes: number): string {
  for (const unit of ['T', 'G', 'M', 'K']) {
    const factor = factors[unit] ?? 1
    if (sizeBytes >= factor && sizeBytes % factor === 0) return `${sizeBytes / factor}${unit}`
  }
  return String(sizeBytes)
}

/** Bytes per second of a `bwlimit`, as PVE has it: KiB per second, of which none and 0 are no limit. */
export function rateOfLimit(bwlimit: number | undefined): number | undefined {
  return bwlimit ? bwlimit * KiB : undefined
}

/** For people: `1.5 GiB`. */
export function humanSize(sizeBytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let [value, unit] = [sizeBytes, 0]
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1]
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

const zeros = Buffer.alloc(128 * KiB)

/** Compares with zeros a piece at a time: the fastest way there is in JavaScript. */
export function isZero(content: Uint8Array): boolean {
  for (let at = 0; at < content.length; at += zeros.length) {
    const length = Math.min(zeros.length, content.length - at)
    if (zeros.compare(content, at, at + length, 0, length) !== 0) return false
  }
  return true
}
