/** Ids where they lie among other bytes. Millions are looked at: a call out of JavaScript for each would take most of the time. */

/** `readUInt32BE` without its checks. */
export function wordAt(bytes: Buffer, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)) >>> 0
  )
}

/** Of their first 16 bytes: less than 0 where the one comes before the other, 0 where they are the same. */
export function compareIds(one: Buffer, at: number, other: Buffer, otherAt: number): number {
  return (
    wordAt(one, at) - wordAt(other, otherAt) ||
    wordAt(one, at + 4) - wordAt(other, otherAt + 4) ||
    wordAt(one, at + 8) - wordAt(other, otherAt + 8) ||
    wordAt(one, at + 12) - wordAt(other, otherAt + 12)
  )
}
