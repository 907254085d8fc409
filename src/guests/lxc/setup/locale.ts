/** A language for containers that have none: one that every system has, and that knows all letters. */
import type { Family } from './family.ts'
import { putFile } from './managed.ts'
import type { Tree } from './tree.ts'

export async function setLocale(tree: Tree, family: Family): Promise<void> {
  if (family === 'alpine') return // Its C library knows no other.
  const places = ['/etc/locale.conf', '/etc/default/locale']
  for (const place of places) if ((await tree.read(place)) !== undefined) return
  const place = family === 'debian' || family === 'ubuntu' ? '/etc/default/locale' : '/etc/locale.conf'
  await putFile(tree, place, 'LANG=C.UTF-8\n')
}
