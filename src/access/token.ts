/**
 * API tokens: a second name for a user, with a secret of its own and, by default, with rights of its own
 * that never exceed the user's.
 *
 * The secret is a lower-case UUID (122 random bits), shown once. A fast hash is enough for it: what makes
 * passwords need a slow one is that people choose them.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { Fault, invalid } from '#base/fault.ts'
import type { Write } from '#store/store.ts'
import { aclRemovals } from './acl-change.ts'
import { requireUser } from './user.ts'
import { keyOf, type Token, type World } from './world.ts'

export interface TokenFacts {
  readonly privsep?: boolean | undefined
  readonly expire?: number | undefined
  readonly comment?: string | undefined
}

/** What may be told about a token: everything but the hash. */
export type TokenInfo = Omit<Token, 'hash'>

export const fullTokenId = (userid: string, tokenid: string): string => `${userid}!${tokenid}`

/** `bob@pve!ci` → `bob@pve` and `ci`; nothing for a text without `!`. A name may hold `!`, a token's may not. */
export function splitTokenId(fullId: string): { userid: string; tokenid: string } | undefined {
  const at = fullId.lastIndexOf('!')
  return at > 0 ? { userid: fullId.slice(0, at), tokenid: fullId.slice(at + 1) } : undefined
}

/** @throws Fault `missing` for the user or the token. */
export function requireToken(world: World, userid: string, tokenid: string): Token {
  requireUser(world, userid)
  const token = world.tokens.get(fullTokenId(userid, tokenid))
  if (!token) throw new Fault('missing', `no such token '${tokenid}' for user '${userid}'`)
  return token
}

export function infoOf({ privsep, expire, comment }: Token): TokenInfo {
  return comment === undefined ? { privsep, expire } : { privsep, expire, comment }
}

export function hashOfSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}

/** Takes equally long for every secret, and for a token that does not exist. */
export function secretMatches(token: Token | undefined, secret: string): boolean {
  const expected = Buffer.from(token?.hash ?? hashOfSecret(''), 'hex')
  const isEqual = timingSafeEqual(Buffer.from(hashOfSecret(secret), 'hex'), expected)
  return isEqual && token !== undefined
}

export function tokenCreation(world: World, userid: string, tokenid: string, token: Token): Write[] {
  requireUser(world, userid)
  const fullId = fullTokenId(userid, tokenid)
  // Kind and wording as clients know them: a wrong parameter, not a conflict.
  if (world.tokens.has(fullId)) throw invalid({ tokenid: `Token '${fullId}' already exists.` })
  return [{ put: keyOf.token(fullId), value: token }]
}

/** @param hash of the new secret when it is made anew */
export function tokenUpdate(
  world: World,
  { userid, tokenid, drop, hash }: { userid: string; tokenid: string; drop: readonly string[]; hash?: string },
  facts: TokenFacts,
): Write[] {
  const before = requireToken(world, userid, tokenid)
  const unknown = drop.find((name) => !['comment', 'expire'].includes(name))
  if (unknown !== undefined) throw invalid({ delete: `'${unknown}' cannot be deleted; comment and expire can` })
  const comment = facts.comment ?? (drop.includes('comment') ? undefined : before.comment)
  const token: Token = {
    privsep: facts.privsep ?? before.privsep,
    expire: facts.expire ?? (drop.includes('expire') ? 0 : before.expire),
    ...(comment === undefined ? {} : { comment }),
    hash: hash ?? before.hash,
  }
  return [{ put: keyOf.token(fullTokenId(userid, tokenid)), value: token }]
}

/** A token leaves with its ACL entries. */
export function tokenDeletion(world: World, userid: string, tokenid: string): Write[] {
  requireToken(world, userid, tokenid)
  const fullId = fullTokenId(userid, tokenid)
  return [
    { delete: keyOf.token(fullId) },
    ...aclRemovals(world, ({ type, ugid }) => type === 'token' && ugid === fullId),
  ]
}
