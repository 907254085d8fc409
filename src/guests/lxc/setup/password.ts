/** The password of root, which comes here only as the hash it is kept as. */
import { Fault } from '#base/fault.ts'
import type { Tree } from './tree.ts'

const path = '/etc/shadow'
/** As in shadow(5): a hash of crypt(3), which holds neither a colon nor a line break. */
const hashed = /^\$[0-9a-z]+\$[^:\s]+$/

export async function setRootPassword(tree: Tree, hash: string): Promise<void> {
  if (!hashed.test(hash)) throw new Fault('failed', 'the password of root was not hashed')
  await tree.write(path, withRootPassword((await tree.read(path)) ?? '', hash), { mode: 0o600 })
}

export function withRootPassword(shadow: string, hash: string): string {
  if (!/^root:/m.test(shadow)) return `root:${hash}:::::::\n${shadow}`
  // Dates and terms of the account stay.
  return shadow.replace(/^root:[^:\n]*/m, () => `root:${hash}`)
}
