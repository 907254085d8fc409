/**
 * Targets an iSCSI portal offers, asked for by libiscsi's `iscsi-ls`: it speaks the protocol itself, so neither the
 * kernel's initiator nor its daemon is needed, and nothing is written down.
 */
import { isIPv6 } from 'node:net'
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { runTool } from '../tool.ts'

export interface IscsiTarget {
  readonly target: string
  /** As `192.0.2.1:3260`, each where the target can be reached. */
  readonly portals: readonly string[]
}

const askMs = 20_000

/** @throws Fault `unavailable` with what the tool says */
export async function iscsiTargets(host: Host, portal: string): Promise<IscsiTarget[]> {
  const argv = ['iscsi-ls', `iscsi://${isIPv6(portal) ? `[${portal}]` : portal}`] as const
  try {
    return parseTargets((await runTool(host, argv, { timeoutMs: askMs })).stdout)
  } catch (cause) {
    if (!isFault(cause) || !['failed', 'timeout'].includes(cause.kind)) throw cause
    const said = cause.kind === 'timeout' ? 'it is silent' : cause.message.replace(/^.*?: (?:\w+_cb: )?/, '')
    throw new Fault('unavailable', `the portal '${portal}' does not list its targets: ${said.slice(0, 200)}`, { cause })
  }
}

/** Reads lines such as `Target:iqn.2026-11.org.example:films Portal:192.0.2.1:3260,1`. */
export function parseTargets(text: string): IscsiTarget[] {
  const found = new Map<string, string[]>()
  for (const [, target = '', portal = ''] of text.matchAll(/^Target:(\S+) Portal:(\S+?)(?:,\d+)?\s*$/gm)) {
    found.set(target, [...(found.get(target) ?? []), portal])
  }
  return [...found].map(([target, portals]) => ({ target, portals }))
}
