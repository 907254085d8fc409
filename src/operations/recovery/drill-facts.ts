/** What a drill is asked to do, what it works with, and what it finds: values only, for all of its files. */
import type { Vmid } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import type { LevelVerdict } from '#recovery/ladder.ts'
import type { Level } from '#recovery/level.ts'
import type { PhaseTimes } from '#recovery/record.ts'
import type { Services } from '#services.ts'
import type { StepContext } from '#tasks/operation.ts'

export type DrillGuest = {
  /** Volume id of the restore point; without one the newest of `vmid`. */
  readonly archive?: string
  readonly vmid?: number
  /** Where the restore points of `vmid` are looked for. */
  readonly backupStorage: string
  /** Where the scratch volumes go; without one, where the backed-up disks were. */
  readonly storage?: string
  readonly wanted: Level
  /** Property strings, see `recovery/probe.ts`. */
  readonly probes: readonly string[]
  readonly bootTimeoutSeconds: number
}

export type DrillDeps = Pick<
  Services,
  'settings' | 'clock' | 'random' | 'host' | 'guests' | 'network' | 'storage' | 'backup' | 'recovery' | 'node'
>

export type DrillPoint = {
  readonly archive: string
  /** `vm/100`, `ct/101`. */
  readonly guest: string
  readonly scratch: number
  /** Name of the isolated network. */
  readonly network: string
  readonly started: string
}

export type DrillOutcome = {
  readonly reached: Level | null
  readonly verdicts: readonly LevelVerdict[]
  readonly phases: PhaseTimes
  readonly pointInTime: string | null
  readonly name: string | null
  /** Configuration the scratch guest booted with; null when it came to no restore. */
  readonly config: Options | null
  readonly parts: readonly RestoredPart[]
}

/** Holes cost nothing this way, and who has the image and no key can make it, too; the last chunk is as long as is left. */
export const diskDigestKind = 'SHA-256 of the SHA-256 of each 128 KiB chunk'

export type RestoredDiskFacts = {
  /** `scsi0` */
  readonly drive: string
  readonly sizeBytes: number
  /** Of what was written; see `digestKind`. */
  readonly digest: string
  /** How the digest is made, for whoever checks the evidence later. */
  readonly digestKind: typeof diskDigestKind
}

export type RestoredTreeFacts = {
  /** `rootfs`, `mp0` */
  readonly name: string
  readonly entries: number
  /** Of the content of its files. */
  readonly sizeBytes: number
  /** Of the tree as it was restored, see `digestKind`. */
  readonly digest: string
  /** How the digest is made, for whoever checks the evidence later. */
  readonly digestKind: string
  /** Digest of the catalogue in the backup, which pins all facts and all content. */
  readonly catalogue: string
}

/** What was restored, one entry for each: disks of a virtual machine, file trees of a container. */
export type RestoredPart = RestoredDiskFacts | RestoredTreeFacts

export interface IsolatedNetwork {
  readonly netns: string
  readonly bridge: string
}

export type ClimbContext = StepContext<
  DrillGuest,
  DrillDeps,
  { readonly point: DrillPoint; readonly network: IsolatedNetwork }
>

export interface RestoredScratch {
  readonly name: string | null
  /** What the system inside takes for its name. */
  readonly toldName: string
  /** What the scratch guest boots with, without secrets. */
  readonly config: Options
  readonly parts: readonly RestoredPart[]
  readonly phases: Pick<PhaseTimes, 'fetch' | 'write'>
}

/** A restored guest that is waited for. */
export interface Scratch {
  readonly deps: DrillDeps
  readonly scratch: Vmid
  readonly config: Options
  readonly toldName: string
  readonly netns: string
  /** Deadline of each single wait. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
}
