/** Certificates of authorities this node believes. */
import { getCACertificates } from 'node:tls'
import { readIfPresent } from '../files.ts'

/** Whom the machine trusts, and whom the node was told to. */
export async function trusted(caFile?: string): Promise<string[]> {
  const own = caFile === undefined ? undefined : await readIfPresent(caFile)
  const all = [...getCACertificates('default'), ...getCACertificates('system'), ...(own === undefined ? [] : [own])]
  return [...new Set(all)]
}
