/** What tells machines apart: a container made from a template or from another container must find its own. */
import type { Tree } from './tree.ts'

export async function forgetMachineId(tree: Tree): Promise<void> {
  // An empty file, because a system without one takes itself for freshly installed and asks its questions.
  if ((await tree.read('/etc/machine-id')) !== undefined) await tree.write('/etc/machine-id', '')
  // A link to the first in most systems, and then the same.
  const old = '/var/lib/dbus/machine-id'
  if ((await tree.linkAt(old)) === undefined && (await tree.read(old)) !== undefined) await tree.remove(old)
}
