/** `/nodes/{node}/execute`: several calls in one. */
import { array, record, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { rootOnly } from '#rest/endpoint.ts'
import type { WireReply } from '#rest/reply.ts'
import { type Call, endpoint } from '../call.ts'

interface BatchCall {
  readonly method: string
  readonly path: string
  readonly args?: Readonly<Record<string, unknown>>
}

export const executeEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/execute',
    description: 'Make several calls, one after the other. A call that fails does not keep the others.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      commands: string({
        description: 'JSON array of calls, each with `method`, `path` below the root of the API, and maybe `args`.',
        format: 'pve-command-batch',
        maxLength: 262_144,
      }),
    },
    permission: rootOnly,
    returns: array(record({ description: 'Status of each call with its data, or with what went wrong.' })),
    handle: ({ commands }, call) => inTurn(JSON.parse(commands) as readonly BatchCall[], call),
  }),
]

async function inTurn(calls: readonly BatchCall[], { again, signal }: Call): Promise<Record<string, unknown>[]> {
  const results: Record<string, unknown>[] = []
  for (const { method, path, args = {} } of calls) {
    if (signal.aborted) break
    const whole = `/${path.replace(/^\/+/, '')}`
    // A batch in a batch would have no end.
    if (/\/execute\/*$/.test(whole)) results.push({ status: 400, message: 'a batch of calls cannot hold another one' })
    else results.push(resultOf(await again({ method, path: whole, params: args })))
  }
  return results
}

function resultOf({ status, reason, body, contentType }: WireReply): Record<string, unknown> {
  const reply: unknown = contentType.startsWith('application/json') ? JSON.parse(body) : { data: body }
  const { data, errors } = reply as { readonly data?: unknown; readonly errors?: unknown }
  if (status === 200) return { status, data: data ?? null }
  return { status, message: reason, ...(errors === undefined ? {} : { errors }) }
}
