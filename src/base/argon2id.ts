/**
 * argon2id (RFC 9106, version 1.3): what people know, made into keys and hashes at a cost that guessing has as well.
 *
 * The work is done on the thread pool, never on the event loop (docs/decisions/passwords-argon2id.md).
 */
import type * as Argon2 from '@node-rs/argon2'
import { loaderFor, once } from './on-demand.ts'

export interface Argon2Cost {
  readonly memoryKiB: number
  readonly passes: number
  readonly lanes: number
}

/** The second recommended option of RFC 9106: for machines that have other things to do with their memory. */
export const standardCost: Argon2Cost = { memoryKiB: 64 * 1024, passes: 3, lanes: 4 }

/** Loaded by who needs it: most programs do not. */
const library = once(() => loaderFor(import.meta.url)<typeof Argon2>('@node-rs/argon2'))
/** Constants of the library that are types alone. */
const [algorithm, version] = [2 as Argon2.Algorithm.Argon2id, 1 as Argon2.Version.V0x13]

/** @returns 32 bytes */
export async function argon2id(secret: string, salt: Buffer, cost: Argon2Cost): Promise<Buffer> {
  const { memoryKiB: memoryCost, passes: timeCost, lanes: parallelism } = cost
  const options = { algorithm, version, salt, memoryCost, timeCost, parallelism, outputLen: 32 }
  return library().hashRaw(Buffer.from(secret), options)
}
