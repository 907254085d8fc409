/** Certificates of authorities this node believes. */
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { readIfPresent } from '../files.ts'

/** Whom the machine trusts, and whom the node was told to. */
export async function trusted(caFile?: string): Promise<string[]> {
  const own = caFile === undefined ? undefined : await readIfPresent(caFile)
  const all = [...getCACertificates('default'), ...getCACertificates('system'), ...(own === undefined ? [] : [own])]
  return [...new Set(all)]
}

let last: { readonly key: string; readonly context: SecureContext } | undefined

/**
 * For connections that believe these authorities and no others. There are hundreds of them, and reading them takes many times
 * what else a connection takes: who asks again with the same ones is not kept waiting for that.
 */
export function trusting(authorities: readonly string[]): SecureContext {
  const key = authorities.join('\n')
  if (last?.key !== key) last = { key, context: createSecureContext({ ca: [...authorities] }) }
  return last.context
}
