/**
 * What goes into a drill's evidence beside its record: configuration, digests of what was restored, what the guest said
 * and showed, and the versions of everything that took part.
 */
import { release } from 'node:os'
import { join } from 'node:path'
import { asVmid, type Vmid } from '#base/ids.ts'
import { limits } from '#base/limits.ts'
import { productVersion } from '#base/product.ts'
import { readForeignFile } from '#host/files.ts'
import type { DrillDeps, DrillOutcome } from './drill-facts.ts'
import type { Drilled } from './drilled.ts'

export const screenName = 'screen.png'
/** The end of a log says how a boot went; a guest that prints for ever must fill neither memory nor disk. */
const logBytes = 1024 * 1024

/** Name to content; a guest that never started leaves no console and no screen. */
export async function gatherExhibits(
  deps: DrillDeps,
  drilled: Drilled,
  scratchId: number,
  outcome: DrillOutcome,
): Promise<Map<string, string | Uint8Array>> {
  const scratch = asVmid(scratchId)
  const exhibits = new Map<string, string | Uint8Array>()
  exhibits.set('environment.json', asText(await environment(deps, drilled)))
  if (outcome.config !== null) exhibits.set('guest-config.json', asText(outcome.config))
  exhibits.set(drilled.partsExhibit, asText(outcome.parts))
  for (const [file, name] of drilled.logs) {
    const text = await logOf(deps, scratch, file)
    if (text !== '') exhibits.set(name, text)
  }
  const screen = await readForeignFile(join(deps.guests.runDirOf(scratch), screenName), limits.evidence.fileBytes)
  if (screen) exhibits.set(screenName, screen)
  return exhibits
}

/** What the guest wrote into a log of its run directory, the end of it; empty when there is none. */
export async function logOf(deps: Pick<DrillDeps, 'guests'>, scratch: Vmid, name: string): Promise<string> {
  const content = await readForeignFile(join(deps.guests.runDirOf(scratch), name), logBytes)
  return content?.toString('utf8') ?? ''
}

/** What the times were measured on: without it they mean little. */
async function environment(deps: DrillDeps, { kind, programs }: Drilled): Promise<Record<string, string | number>> {
  const { model, threads } = await deps.node.processor()
  return {
    hakobune: productVersion,
    kind,
    ...(await programs(deps)),
    processor: model,
    processorThreads: threads,
    kernel: release(),
    node: process.version,
  }
}

const asText = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`
