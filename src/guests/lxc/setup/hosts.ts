/** The container finds itself by its name, at an address of its own where it has a fixed one. */
import { putBlock } from './managed.ts'
import { namesOf, type Told } from './told.ts'
import type { Tree } from './tree.ts'

const plain = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n'

export async function setHosts(tree: Tree, told: Told): Promise<void> {
  await putBlock(tree, '/etc/hosts', hostsLines(told), plain)
}

export function hostsLines(told: Told): string[] {
  const { short, full } = namesOf(told)
  const names = full === short ? short : `${full} ${short}`
  const first = (family: 'ip4' | 'ip6') => {
    const found = told.nics.map((nic) => nic[family]).find((one) => one?.kind === 'static')
    return found?.kind === 'static' ? [found.address] : []
  }
  const own = [...first('ip4'), ...first('ip6')]
  return (own.length === 0 ? ['127.0.1.1'] : own).map((address) => `${address} ${names}`)
}
