/**
 * Password hashes: argon2id, written as `$argon2id$v=19$m=65536,t=3,p=4$<salt>$<hash>` so that the cost can
 * rise without anybody choosing a new password. The work runs on the thread pool, never on the event loop.
 */
import { timingSafeEqual } from 'node:crypto'
import { type Argon2Cost, argon2id } from '#base/argon2id.ts'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'

const hashBytes = 32
const shape = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/

export async function hashPassword(random: Random, password: string, cost: Argon2Cost): Promise<string> {
  const salt = Buffer.from(random.bytes(16))
  const hash = await argon2id(password, salt, cost)
  const { memoryKiB, passes, lanes } = cost
  return `$argon2id$v=19$m=${memoryKiB},t=${passes},p=${lanes}$${unpadded(salt)}$${unpadded(hash)}`
}

/** @throws Fault `damaged` when the stored text is no hash; it is not repeated in the fault. */
export async function passwordMatches(stored: string, password: string): Promise<boolean> {
  const { cost, salt, hash } = readHash(stored)
  return timingSafeEqual(await argon2id(password, salt, cost), hash)
}

/** Whether the hash was made at another cost than the one wanted now. */
export function hasCost(stored: string, cost: Argon2Cost): boolean {
  const { memoryKiB, passes, lanes } = readHash(stored).cost
  return memoryKiB === cost.memoryKiB && passes === cost.passes && lanes === cost.lanes
}

function readHash(stored: string): { cost: Argon2Cost; salt: Buffer; hash: Buffer } {
  const [, memory, passes, lanes, salt = '', hash = ''] = shape.exec(stored) ?? []
  const bytes = Buffer.from(hash, 'base64')
  if (bytes.length !== hashBytes) throw new Fault('damaged', 'a stored password hash cannot be read')
  const cost = { memoryKiB: Number(memory), passes: Number(passes), lanes: Number(lanes) }
  return { cost, salt: Buffer.from(salt, 'base64'), hash: bytes }
}

function unpadded(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '')
}
