/** From the parameters of a call to what a drill is asked to do, with everything wrong said before it starts. */
import { invalid } from '#base/fault.ts'
import type { Level } from '#recovery/level.ts'
import { parseProbe } from '#recovery/probe.ts'
import { isForeignArchive } from '../backup/archive-file.ts'
import type { DrillGuest } from './drill-facts.ts'

export interface DrillParams {
  readonly vmid?: number | undefined
  readonly archive?: string | undefined
  readonly 'backup-storage'?: string | undefined
  readonly storage?: string | undefined
  readonly level?: Level | undefined
  readonly 'boot-timeout'?: number | undefined
  readonly [probe: `probe${number}`]: string | undefined
}

/** @throws Fault `invalid` naming the field */
export function drillRequest(params: DrillParams): DrillGuest {
  const { vmid, archive, storage } = params
  if (vmid === undefined && archive === undefined)
    throw invalid({ vmid: 'name a guest (vmid) or a restore point (archive)' })
  if (archive !== undefined && isForeignArchive(archive)) {
    throw invalid(
      { archive: `'${archive}' is an archive of another platform, of which nothing but its headers can be proven` },
      { remedy: 'Restore it, back the guest up here, and drill that backup.' },
    )
  }
  const probes = Object.keys(params)
    .filter(
      (name): name is `probe${number}` => /^probe\d$/.test(name) && params[name as `probe${number}`] !== undefined,
    )
    .toSorted()
    .map((name) => params[name] ?? '')
  for (const [at, text] of probes.entries()) parseProbe(text, `probe${at}`)
  const wanted = params.level ?? (probes.length > 0 ? 'L6' : 'L5')
  if (wanted === 'L6' && probes.length === 0)
    throw invalid({ level: 'L6 needs at least one probe: what should the application answer?' })
  return {
    ...(vmid === undefined ? {} : { vmid }),
    ...(archive === undefined ? {} : { archive }),
    ...(storage === undefined ? {} : { storage }),
    backupStorage: params['backup-storage'] ?? 'local',
    wanted,
    probes,
    bootTimeoutSeconds: params['boot-timeout'] ?? 120,
  }
}
