/**
 * What every driver asks of keys, values and transactions before it looks at its data.
 *
 * Drivers keep values as JSON text: a reader then always gets a value of its own, and no two handles can
 * share an object by accident.
 */
import { Fault, invalid } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import type { Guard, Json, LeaseId, Write } from './store.ts'

/** A write whose value is text already; no text means the key is deleted. */
export interface TextWrite {
  readonly key: string
  readonly text: string | undefined
  readonly lease: LeaseId | undefined
}

/** @throws Fault `invalid` unless the key is 1 to `limits.store.keyBytes` bytes of printable text. */
export function checkKey(key: string): void {
  const sizeBytes = Buffer.byteLength(key)
  if (sizeBytes === 0 || sizeBytes > limits.store.keyBytes) {
    const shown = key.length > 40 ? `${key.slice(0, 40)}…` : key
    throw invalid({ key: `store key '${shown}' has ${sizeBytes} bytes: it must have 1 to ${limits.store.keyBytes}` })
  }
  // Lone surrogates would come back from disk as another text.
  if (/\p{Cc}/u.test(key) || !key.isWellFormed()) {
    throw invalid({ key: `store key ${JSON.stringify(key)} contains characters that cannot be printed` })
  }
}

/** The value as it is kept. @throws Fault `too-large` over `limits.store.valueBytes`. */
export function valueToText(key: string, value: Json): string {
  // JSON.stringify has no text for `undefined` and functions, whatever its type says.
  const text: string | undefined = JSON.stringify(value)
  if (text === undefined) throw invalid({ value: `the value of store key '${key}' is not JSON` })
  const sizeBytes = Buffer.byteLength(text)
  if (sizeBytes > limits.store.valueBytes) {
    throw new Fault(
      'too-large',
      `the value of store key '${key}' has ${sizeBytes} bytes: at most ${limits.store.valueBytes} fit`,
    )
  }
  return text
}

/** @throws Fault `damaged` when the text is not JSON, which no driver ever writes. */
export function textToValue<T extends Json>(key: string, text: string): T {
  try {
    return JSON.parse(text) as T
  } catch (cause) {
    throw new Fault('damaged', `the value of store key '${key}' is damaged`, { cause })
  }
}

/** Checks keys, sizes and that no key is written twice; returns the writes as text. */
export function prepareWrites(guards: readonly Guard[], writes: readonly Write[]): TextWrite[] {
  for (const { key } of guards) checkKey(key)
  const seen = new Set<string>()
  return writes.map((write) => {
    const key = 'put' in write ? write.put : write.delete
    checkKey(key)
    if (seen.has(key)) throw invalid({ key: `store key '${key}' is written twice in one transaction` })
    seen.add(key)
    return 'put' in write
      ? { key, text: valueToText(key, write.value), lease: write.lease }
      : { key, text: undefined, lease: undefined }
  })
}

/** The fault of a guard that does not hold. `found` is 0 when the key does not exist. */
export function conflictAt({ key, revision }: Guard, found: number): Fault {
  if (revision === 0) return new Fault('conflict', `'${key}' already exists in the store`)
  if (found === 0) return new Fault('conflict', `'${key}' no longer exists in the store`)
  return new Fault('conflict', `'${key}' was changed by somebody else (revision ${found}, expected ${revision})`)
}

export function leaseEnded(lease: LeaseId): Fault {
  return new Fault('missing', `lease '${lease}' does not exist or has ended`)
}

/** @throws Fault `invalid` unless the time to live is a positive number of milliseconds, at most a day. */
export function checkTimeToLive(ttlMs: number): void {
  if (!Number.isFinite(ttlMs) || ttlMs <= 0 || ttlMs > 86_400_000) {
    throw invalid({ ttlMs: `a lease of ${ttlMs} ms is not possible: it must last more than 0 and at most 86400000 ms` })
  }
}

/** How many entries a list may read: one more than it may return, so that "too many" can be told. */
export function listBound(limit: number | undefined): number {
  if (limit !== undefined && (!Number.isInteger(limit) || limit < 0)) {
    throw invalid({ limit: `a list of ${limit} entries is not possible` })
  }
  return limit !== undefined && limit <= limits.store.listEntries ? limit : limits.store.listEntries + 1
}

/** @throws Fault `exhausted` when a list has more entries than one answer may hold. */
export function checkListSize(prefix: string, count: number): void {
  if (count > limits.store.listEntries) {
    throw new Fault(
      'exhausted',
      `more than ${limits.store.listEntries} store keys begin with '${prefix}': list them in parts`,
    )
  }
}

export function closedStore(): Fault {
  return new Fault('unavailable', 'the store is closed')
}
