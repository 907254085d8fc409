/** Flags of processors QEMU knows, and which of them the node's own processor has. */
import { array, object, optional, type Static, string } from '#base/schema/schema.ts'
import { processorModels } from '#host/qemu/qemu-abilities.ts'
import type { Services } from '#services.ts'

export const processorFlags = array(
  object({
    name: string({ description: 'Name of the flag.' }),
    'supported-on': optional(array(string({ description: 'Node whose processor has it.' }))),
  }),
)

/** The architecture of this machine, as QEMU spells it. */
const ownArch = (): string => (process.arch === 'arm64' ? 'aarch64' : 'x86_64')

export async function flagsOf(
  { host, node, settings }: Pick<Services, 'host' | 'node' | 'settings'>,
  arch = ownArch(),
): Promise<Static<typeof processorFlags>> {
  const { flags } = await processorModels(host, arch)
  const own = new Set((await node.processor()).flags.replaceAll('_', '-').split(/\s+/))
  const isOwn = (name: string) => own.has(name.replaceAll('_', '-'))
  return flags.map((name) => ({ name, ...(isOwn(name) ? { 'supported-on': [settings.node] } : {}) }))
}
