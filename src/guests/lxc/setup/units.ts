/** Units that need the machine itself, which a container does not have: they would fail at every start. */
import type { Tree } from './tree.ts'

const folder = '/etc/systemd/system'
const machinesOwn = [
  'proc-sys-fs-binfmt_misc.automount',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'systemd-journald-audit.socket',
]

export async function switchOffUnits(tree: Tree): Promise<void> {
  for (const unit of machinesOwn) {
    const isThere =
      (await tree.exists(`/usr/lib/systemd/system/${unit}`)) || (await tree.exists(`/lib/systemd/system/${unit}`))
    // Whoever has written one of his own means it.
    const isTheirs = (await tree.read(`${folder}/${unit}`)) !== undefined
    if (isThere && !isTheirs) await tree.link(`${folder}/${unit}`, '/dev/null')
  }
}
