/**
 * What goes into a drill's evidence beside its record: configuration, digests of the restored disks, what
 * the guest said and showed, and the versions of everything that took part.
 */
import { release } from 'node:os'
import { join } from 'node:path'
import { asVmid, type Vmid } from '#base/ids.ts'
import { limits } from '#base/limits.ts'
import { isHeadless } from '#guests/qemu/vga.ts'
import { readForeignFile } from '#host/files.ts'
import { accelerator } from '#host/kvm.ts'
import { productVersion } from '#base/product.ts'
import type { DrillDeps, DrillOutcome } from './drill-facts.ts'
import { logOf } from './drill-guest.ts'

export const screenName = 'screen.png'

/** Name to content; a guest that never started leaves no console and no screen. */
export async function gatherExhibits(
  deps: DrillDeps,
  scratchId: number,
  outcome: DrillOutcome,
): Promise<Map<string, string | Uint8Array>> {
  const scratch = asVmid(scratchId)
  const exhibits = new Map<string, string | Uint8Array>()
  exhibits.set('environment.json', `${JSON.stringify(await environment(deps), null, 2)}\n`)
  if (outcome.config !== null) exhibits.set('guest-config.json', `${JSON.stringify(outcome.config, null, 2)}\n`)
  exhibits.set('disks.json', `${JSON.stringify(outcome.disks, null, 2)}\n`)
  for (const [file, name] of [
    ['serial.log', 'console.txt'],
    ['firmware.log', 'firmware.txt'],
  ] as const) {
    const text = await logOf(deps, scratch, file)
    if (text !== '') exhibits.set(name, text)
  }
  const screen = await readForeignFile(join(deps.guests.runDirOf(scratch), screenName), limits.evidence.fileBytes)
  if (screen) exhibits.set(screenName, screen)
  return exhibits
}

/** What the times were measured on: without it they mean little. */
async function environment({ host, settings, node }: DrillDeps): Promise<Record<string, string | number>> {
  const { stdout } = await host.run(['qemu-system-x86_64', '--version'])
  const { accelerator: kind, reason } = await accelerator({ host, cacheDir: settings.cacheDir })
  const { model, threads } = await node.processor()
  return {
    hakobune: productVersion,
    qemu: stdout.split('\n')[0] ?? '',
    accelerator: kind,
    acceleratorReason: reason,
    processor: model,
    processorThreads: threads,
    kernel: release(),
    node: process.version,
  }
}

/** Photographs the guest's screen into its run directory. A guest that never started, or is headless, has none. */
export async function photograph({ guests }: Pick<DrillDeps, 'guests'>, scratch: Vmid): Promise<void> {
  const { running } = await guests.config(scratch)
  if (!running || isHeadless(running)) return
  await using qmp = await guests.qmp(scratch)
  await qmp.execute('screendump', { filename: join(guests.runDirOf(scratch), screenName), format: 'png' })
}
