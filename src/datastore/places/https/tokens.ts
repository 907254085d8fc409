/**
 * Who may do what with the datastores a server offers. The file on the server holds hashes alone: whoever reads it can
 * show none of the tokens.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'

/** `write` adds and neither replaces nor removes; that takes `delete`. */
export const rights = ['read', 'write', 'delete'] as const
export type Right = (typeof rights)[number]

export interface ServeToken {
  readonly name: string
  readonly rights: readonly Right[]
  /** SHA-256 of the token. */
  readonly hash: Buffer
}

const tokensMaximum = 1_024
const lineShape = /^([A-Za-z0-9][A-Za-z0-9._-]{0,62}) ([a-z,]+) ([0-9a-f]{64})$/
const tokenShape = /^[A-Za-z0-9_-]{43}$/

export function newToken(random: Random): string {
  return Buffer.from(random.bytes(32)).toString('base64url')
}

export function hashOfToken(token: string): Buffer {
  return createHash('sha256').update(token).digest()
}

/** As it stands in the file. */
export function printToken({ name, rights: may, hash }: ServeToken): string {
  return `${name} ${may.join(',')} ${hash.toString('hex')}\n`
}

/** @throws Fault `invalid` naming the line */
export function parseTokens(text: string): ServeToken[] {
  const found: ServeToken[] = []
  for (const [number, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const [, name, may = '', hash = ''] = lineShape.exec(line.trim()) ?? []
    if (name === undefined) throw new Fault('invalid', `line ${number + 1} of the tokens is none`)
    found.push({ name, rights: parseRights(may), hash: Buffer.from(hash, 'hex') })
  }
  if (found.length > tokensMaximum) throw new Fault('too-large', `there are more than ${tokensMaximum} tokens`)
  return found
}

/** @throws Fault `invalid` */
export function parseRights(text: string): Right[] {
  return text.split(',').map((one) => {
    const right = rights.find((known) => known === one)
    if (right) return right
    throw new Fault('invalid', `'${one}' is no right`, { remedy: `It is one of: ${rights.join(', ')}.` })
  })
}

/** Of the value of an `Authorization` header. */
export function tokenOf(header: string | undefined, tokens: readonly ServeToken[]): ServeToken | undefined {
  const given = /^Bearer (\S+)$/.exec(header ?? '')?.[1]
  if (given === undefined || !tokenShape.test(given)) return undefined
  const hash = hashOfToken(given)
  return tokens.find((token) => timingSafeEqual(token.hash, hash))
}
