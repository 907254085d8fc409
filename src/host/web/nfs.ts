/** What an NFS server offers, asked for by showmount: servers of version 4 alone do not answer it. */
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { runTool } from '../tool.ts'

export interface NfsExport {
  readonly path: string
  /** To whom: networks, names and groups, or `(everyone)`. */
  readonly clients: string
}

const askMs = 20_000

/** @throws Fault `unavailable` with what the tool says */
export async function nfsExports(host: Host, server: string): Promise<NfsExport[]> {
  const { code, stdout, stderr } = await asked(server, () =>
    runTool(host, ['showmount', '--no-headers', '--exports', '--', server], { okCodes: [0, 1], timeoutMs: askMs }),
  )
  if (code === 0) return parseExports(stdout)
  const said = /(?:RPC|[Nn]ame or service|getaddrinfo)\W.*/.exec(stderr)?.[0] ?? 'it does not answer'
  throw new Fault('unavailable', `the server '${server}' does not list its exports: ${said.slice(0, 200)}`, {
    remedy: 'A server that speaks NFS version 4 alone lists none; its exports have to be known.',
  })
}

async function asked<T>(server: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (cause) {
    if (!isFault(cause, 'timeout')) throw cause
    throw new Fault('unavailable', `the server '${server}' does not list its exports: it is silent`, { cause })
  }
}

/** Reads lines such as `/films 192.0.2.0/24,desks`. */
export function parseExports(text: string): NfsExport[] {
  return [...text.matchAll(/^(\/.*?)\s+(\S+)\s*$/gm)].map(([, path = '', clients = '']) => ({ path, clients }))
}
