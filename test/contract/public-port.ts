/** The public port of a node, spoken to by curl: every byte of the request is the test's own. */
import assert from 'node:assert/strict'
import { curl, type CurlReply } from './curl.ts'

export interface PublicReply extends CurlReply {
  /** The whole body, read. */
  readonly json: Readonly<Record<string, unknown>>
  readonly data: unknown
}

/** Arguments of curl beside the address. */
export type Ask = (path: string, ...args: readonly string[]) => Promise<PublicReply>

/** @param base such as `https://127.0.0.1:8006/api2/json` @param proof curl's arguments that say who calls */
export function publicPort(base: string, proof: readonly string[] = []): Ask {
  return async (path, ...args) => {
    const reply = await curl(['--path-as-is', ...proof, ...args, `${base}${path}`])
    const json = objectOf(reply.body)
    return { ...reply, json, data: json.data }
  }
}

export interface Session {
  readonly ticket: string
  readonly csrf: string
}

export async function logIn(base: string, username: string, password: string): Promise<Session> {
  const { status, reason, data } = await publicPort(base)('/access/ticket', ...form({ username, password }))
  assert.equal(status, 200, reason)
  const { ticket, CSRFPreventionToken: csrf } = data as { ticket: string; CSRFPreventionToken: string }
  return { ticket, csrf }
}

export const cookieOf = ({ ticket }: Session): string[] => ['-b', `PVEAuthCookie=${ticket}`]
export const proofOf = (session: Session): string[] => [
  ...cookieOf(session),
  '-H',
  `CSRFPreventionToken: ${session.csrf}`,
]
export const tokenProof = (fullId: string, secret: string): string[] => [
  '-H',
  `Authorization: PVEAPIToken=${fullId}=${secret}`,
]

export const method = (name: string): string[] => ['-X', name]

/** A form, as curl itself would escape it. */
export function form(params: Readonly<Record<string, string>>): string[] {
  return Object.entries(params).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`])
}

export function jsonBody(value: unknown): string[] {
  return ['-H', 'Content-Type: application/json', '-d', JSON.stringify(value)]
}

function objectOf(text: string): Record<string, unknown> {
  try {
    // curl hands over bytes as Latin-1; a body is UTF-8.
    const value: unknown = JSON.parse(Buffer.from(text, 'latin1').toString('utf8'))
    return typeof value === 'object' && value !== null ? { ...value } : {}
  } catch {
    return {}
  }
}
