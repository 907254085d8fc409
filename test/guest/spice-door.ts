/**
 * The door of SPICE by hand, for what a real viewer never does: the way through the proxy, TLS, and the first words of
 * SPICE as far as the answer whether the password is right.
 */
import assert from 'node:assert/strict'
import { constants, createPublicKey, publicEncrypt } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { readExactly } from '#consoles/exact-read.ts'
/** What a viewer is given to come in by. */
export interface ViewerFacts {
  readonly type: string
  readonly title: string
  readonly host: string
  readonly proxy: string
  readonly 'tls-port': number
  readonly password: string
  readonly 'host-subject': string
  readonly ca: string
}

export interface Answer {
  readonly status: number
  readonly reason: string
  readonly socket: Socket
}

/** Asks the proxy for a host, whatever it is called. */
export async function askProxy(port: number, host: string, method = 'CONNECT'): Promise<Answer> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(`${method} ${host} HTTP/1.0\r\nHost: ${host}\r\n\r\n`)
  const head: number[] = []
  while (!Buffer.from(head.slice(-4)).equals(Buffer.from('\r\n\r\n'))) head.push(...(await read(socket, 1)))
  const line = Buffer.from(head).toString('latin1').split('\r\n', 1)[0] ?? ''
  const [, status, reason = ''] = /^HTTP\/1\.[01] (\d+) ?(.*)$/.exec(line) ?? []
  return { status: Number(status), reason, socket }
}

/** Begins TLS as a viewer does: the certificate is the one it was told of, whatever the host is called. */
export async function beginTls(socket: Socket, ca: string): Promise<TLSSocket> {
  const tls = connectTls({ socket, ca, checkServerIdentity: () => undefined })
  await once(tls, 'secureConnect')
  assert.ok(tls.authorized)
  return tls
}

/** Opens the main channel. True when the guest takes the password. */
export async function knock(tls: TLSSocket, password: string): Promise<boolean> {
  const hello = Buffer.alloc(16 + 18)
  hello.write('REDQ', 0, 'latin1')
  hello.writeUInt32LE(2, 4)
  hello.writeUInt32LE(2, 8)
  hello.writeUInt32LE(18, 12)
  hello.writeUInt8(1, 20) // A new session, its main channel, no capabilities.
  hello.writeUInt32LE(18, 30)
  tls.write(hello)
  const size = (await read(tls, 16)).readUInt32LE(12)
  const reply = await read(tls, size)
  assert.equal(reply.readUInt32LE(), 0)
  const key = createPublicKey({ key: reply.subarray(4, 4 + 162), format: 'der', type: 'spki' })
  const secret = Buffer.from(`${password}\0`)
  tls.write(publicEncrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING }, secret))
  return (await read(tls, 4)).readUInt32LE() === 0
}

const read = (stream: Readable, bytes: number) =>
  readExactly(stream, bytes, { signal: AbortSignal.timeout(15_000), who: 'the other side' })
