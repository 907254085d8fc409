/**
 * The node's local socket, as the command line uses it: the client every program has (`rest/client.ts`), a
 * word of its own for "no node here", and files.
 *
 * The socket knows who calls by the kernel's word, so nothing secret is kept or sent here.
 */
import { join } from 'node:path'
import { type Fault, isFault } from '#base/fault.ts'
import { apiClient, type ClientReply } from '#rest/client.ts'
import { type ClosableTransport, unixTransport } from '#rest/transport.ts'

export interface CallOptions {
  /** The parameter `filename` is a path on this machine: its content is sent. */
  readonly isUpload?: boolean
  readonly signal?: AbortSignal
}

export type Params = Readonly<Record<string, string | readonly string[]>>

export interface Connection {
  readonly call: (method: string, path: string, params?: Params, options?: CallOptions) => Promise<ClientReply<unknown>>
  readonly socketPath: string
}

/** Some calls do their work before they answer; the daemon itself gives up earlier. */
const timeoutMs = 200_000

/** @param runDir the node's directory of sockets */
export function connectionTo(runDir: string, noNode: (socketPath: string) => Fault): Connection {
  const socketPath = join(runDir, 'api.sock')
  const transport = unixTransport(socketPath, { timeoutMs })
  return {
    socketPath,
    call: (method, path, params = {}, { isUpload = false, signal } = {}) =>
      send(transport, { method, path, params, isUpload, signal }).catch((fault: unknown) => {
        throw isNobodyThere(fault) ? noNode(socketPath) : fault
      }),
  }
}

interface CallFacts {
  readonly method: string
  readonly path: string
  readonly params: Params
  readonly isUpload: boolean
  readonly signal: AbortSignal | undefined
}

async function send(transport: ClosableTransport, call: CallFacts): Promise<ClientReply<unknown>> {
  const { method, path, params, isUpload, signal } = call
  if (isUpload) return (await import('./upload.ts')).upload(transport.send, { path, params, signal })
  return apiClient(transport.send).raw(method, path, plain(params), signal ? { signal } : {})
}

/** What was given once is one value, not a list of one: which of them it is, the node's schema knows. */
function plain(params: Params): Params {
  return Object.fromEntries(
    Object.entries(params).map(([name, value]) => {
      const [first, ...others] = [value].flat()
      return [name, first !== undefined && others.length === 0 ? first : value]
    }),
  )
}

function isNobodyThere(fault: unknown): boolean {
  if (!isFault(fault, 'unavailable')) return false
  const { cause } = fault
  return cause instanceof Error && 'code' in cause && ['ENOENT', 'ECONNREFUSED', 'EACCES'].includes(String(cause.code))
}
