/** Makes true what every node starts from: a storage called `local`, and a bridge where it makes its own. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { screensDirectory } from '#operations/console/drawn-terminal.ts'
import type { NodeServices } from './services.ts'
import { ownBridge } from './settings.ts'

export async function prepareNode({ settings, storage, network }: NodeServices): Promise<void> {
  await storage.ensureLocal()
  // Terminals drawn as screens ended with the daemon that had opened them.
  await rm(join(settings.runDir, screensDirectory), { recursive: true, force: true })
  if (settings.bridge === 'nat') await ensureOwnBridge(settings, network)
}

/** Keeps the subnet the bridge already has: guests know their addresses by it. */
async function ensureOwnBridge(settings: NodeServices['settings'], network: NodeServices['network']): Promise<void> {
  const name = ownBridge(settings)
  const known = (await network.bridges()).find((bridge) => bridge.name === name)
  const cidr = known?.cidr ?? (await network.freeSubnet())
  await network.ensureBridge({ name, cidr, nat: true, dhcp: {} })
}
