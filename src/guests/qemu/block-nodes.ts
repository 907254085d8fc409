/** The block nodes of a running QEMU, by the names they were given. */
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'

const busyMs = 20_000

export async function blockNodes(monitor: QmpClient): Promise<string[]> {
  const nodes = await monitor.execute<readonly { readonly 'node-name': string }[]>('query-named-block-nodes', {
    flat: true,
  })
  return nodes.map((node) => node['node-name'])
}

/** Idempotent. A node may be busy for a moment after its user has gone. @throws Fault `timeout` when it stays so */
export async function removeBlockNode(monitor: QmpClient, name: string): Promise<void> {
  const isGone = async () => {
    try {
      await monitor.execute('blockdev-del', { 'node-name': name })
      return true
    } catch (cause) {
      if (isFault(cause, 'failed')) return !(await blockNodes(monitor)).includes(name)
      throw cause
    }
  }
  await waitFor(isGone, { what: `the removal of block node ${name}`, timeoutMs: busyMs })
}
