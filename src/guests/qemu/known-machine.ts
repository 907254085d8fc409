/** Whether the node's QEMU knows a machine of a certain version; only QEMU itself can say. */
import { invalid } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { machineTypes } from '#host/qemu/qemu-abilities.ts'
import type { Options } from '../config.ts'
import { qemuMachineOf } from './machine.ts'

/** @throws Fault `invalid` naming the newest ones there are */
export async function requireKnownMachine(host: Host, options: Options): Promise<void> {
  const type = options.machine === undefined ? undefined : qemuMachineOf(options)
  if (type === undefined || type === 'q35' || type === 'pc') return
  const known = await machineTypes(host, 'x86_64')
  if (known.some(({ id }) => id === type)) return
  const [q35, pc] = (['q35', 'i440fx'] as const).map((kind) => known.find((one) => one.kind === kind)?.id)
  throw invalid({ machine: `this node's QEMU does not know '${type}': its newest are ${q35} and ${pc}` })
}
