/**
 * A screen: VNC (RFB, RFC 6143) between a client and a guest, with the door in between.
 *
 * The guest's QEMU asks for no password: only root reaches its socket. Clients of this API expect to give one, so
 * it is asked for here, and everything after that is carried untouched. Rejected: QEMU's own password, of
 * which there is one for all who look at a screen, so that a second viewer would change it under the first.
 */
import { createCipheriv, timingSafeEqual } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { type ReadLimit, readExactly } from './exact-read.ts'
import { joined } from './join.ts'
import { consoleLimits } from './limits.ts'

export interface ScreenFacts {
  /** Eight characters: VNC reads no more. */
  readonly password: string
  readonly random: Random
  readonly connect: () => Promise<Duplex>
  readonly passwordMs?: number
}

const version = 'RFB 003.008\n'
const security = { none: 1, password: 2 } as const

export async function serveScreen(client: Duplex, facts: ScreenFacts): Promise<void> {
  // First, so that a client hears at once of a screen that is not there.
  const line = await facts.connect()
  line.on('error', () => line.destroy())
  try {
    const signal = AbortSignal.timeout(facts.passwordMs ?? consoleLimits.passwordMs)
    await admit(client, facts, { signal, who: 'the client' })
    await enter(line, { signal, who: 'the screen' })
  } catch (error) {
    line.destroy()
    throw error
  }
  await joined(client, line)
}

/** The server's side of the first words. @throws Fault `unauthenticated` */
async function admit(client: Duplex, { password, random }: ScreenFacts, limit: ReadLimit): Promise<void> {
  client.write(version)
  const said = (await readExactly(client, version.length, limit)).toString('latin1')
  const minor = Number(/^RFB 003\.(\d{3})\n$/.exec(said)?.[1])
  if (!(minor >= 3)) throw new Fault('invalid', 'the client speaks no version of VNC that is known here')
  // Before 3.7 the server decides; since then the client chooses from a list of one.
  const isOld = minor < 7
  client.write(isOld ? uint32(security.password) : Buffer.of(1, security.password))
  if (!isOld && (await readExactly(client, 1, limit))[0] !== security.password) {
    throw new Fault('invalid', 'the client chose a way to log in that was not offered')
  }
  const challenge = random.bytes(16)
  client.write(challenge)
  const answer = await readExactly(client, challenge.length, limit)
  if (timingSafeEqual(answer, answerTo(challenge, password))) {
    client.write(uint32(0))
    return
  }
  const reason = Buffer.from('authentication failure')
  client.write(minor < 8 ? uint32(1) : Buffer.concat([uint32(1), uint32(reason.length), reason]))
  client.end()
  throw new Fault('unauthenticated', 'wrong password for the screen')
}

/** The client's side, at a server that asks for nothing. */
async function enter(line: Duplex, limit: ReadLimit): Promise<void> {
  const strange = () => new Fault('unavailable', 'the screen does not speak VNC as it should')
  if ((await readExactly(line, version.length, limit)).toString('latin1') !== version) throw strange()
  line.write(version)
  const [count = 0] = await readExactly(line, 1, limit)
  const offered = count === 0 ? [] : [...(await readExactly(line, count, limit))]
  if (!offered.includes(security.none)) throw strange()
  line.write(Buffer.of(security.none))
  if ((await readExactly(line, 4, limit)).readUInt32BE() !== 0) throw strange()
}

/**
 * DES of the challenge under the password, each of whose bytes VNC reads from the other end. Three equal keys make
 * one DES of Triple DES; the plain one is left out of today's OpenSSL.
 */
export function answerTo(challenge: Uint8Array, password: string): Buffer {
  const key = Buffer.alloc(8)
  key.set(Buffer.from(password, 'latin1').subarray(0, 8).map(mirrored))
  const cipher = createCipheriv('des-ede3', Buffer.concat([key, key, key]), null).setAutoPadding(false)
  return Buffer.concat([cipher.update(challenge), cipher.final()])
}

function mirrored(byte: number): number {
  let mirror = 0
  for (let bit = 0; bit < 8; bit += 1) mirror |= ((byte >> bit) & 1) << (7 - bit)
  return mirror
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
