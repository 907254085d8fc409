/**
 * Name servers and domains, for containers in which nobody else looks after them.
 *
 * Where systemd-resolved is in charge the file is a link to what it makes at each start; it learns the servers from
 * the files of the network.
 */
import { hasBlock, isTheirs, withBlock } from './managed.ts'
import type { ToldDns } from './told.ts'
import type { Tree } from './tree.ts'

const path = '/etc/resolv.conf'

export async function setResolver(tree: Tree, dns: ToldDns): Promise<void> {
  if ((await isTheirs(tree, path)) || (await isResolved(tree))) return
  const link = await tree.linkAt(path)
  // What a link leads to below /run is gone at the next start.
  const isPassing = link !== undefined && /^(?:\.\.)?\/run\/|^\/var\/run\//.test(link)
  if (isPassing) await tree.remove(path)
  const before = isPassing ? '' : ((await tree.read(path)) ?? '')
  // A file without a block is what the template was built with.
  await tree.write(path, withBlock(hasBlock(before) ? before : '', resolverLines(dns)))
}

export async function isResolved(tree: Tree): Promise<boolean> {
  return (await tree.linkAt(path))?.includes('run/systemd/resolve/') === true
}

export function resolverLines({ servers, search }: ToldDns): string[] {
  const domains = search.length === 0 ? [] : [`search ${search.join(' ')}`]
  return [...domains, ...servers.map((server) => `nameserver ${server}`)]
}
