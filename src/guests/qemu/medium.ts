/** Changes the disc in a cdrom drive of a running guest, to which it looks like a tray that opens and closes. */
import type { QmpClient } from '#host/qemu/qmp.ts'
import { blockNode, type DriveFile } from './drive-argv.ts'
import { nodeNameOf } from './drive-device.ts'
import type { Drive } from './drive.ts'

/** May be repeated, also after somebody who died between two of its commands. */
export async function changeMedium(monitor: QmpClient, drive: Drive, file: DriveFile): Promise<void> {
  const { name: id } = drive
  // By force: a guest that has the disc mounted keeps the tray locked.
  await monitor.execute('blockdev-open-tray', { id, force: true })
  await monitor.execute('blockdev-remove-medium', { id })
  const nodes = await monitor.execute<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true })
  if (nodes.some((node) => node['node-name'] === nodeNameOf(id))) {
    await monitor.execute('blockdev-del', { 'node-name': nodeNameOf(id) })
  }
  await monitor.execute('blockdev-add', blockNode(drive, file))
  await monitor.execute('blockdev-insert-medium', { id, 'node-name': nodeNameOf(id) })
  await monitor.execute('blockdev-close-tray', { id })
}
