/** The container's name. */
import { putFile } from './managed.ts'
import { namesOf, type Told } from './told.ts'
import type { Tree } from './tree.ts'

export async function setHostname(tree: Tree, told: Told): Promise<void> {
  await putFile(tree, '/etc/hostname', `${namesOf(told).short}\n`)
}
