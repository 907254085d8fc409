/**
 * What differs between the drill of a virtual machine and that of a container. Everything else of a drill (the choice of
 * a restore point, scratch id, isolated network, ladder, probes, evidence, removal) does not ask which of them it has.
 */
import type { Manifest } from '#datastore/points/manifest.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import type { Vmid } from '#base/ids.ts'
import type { GuestKind } from '#guests/kind.ts'
import type { GuestAddress } from '#network/subnet.ts'
import type { ClimbContext, DrillDeps, RestoredScratch, Scratch } from './drill-facts.ts'

export interface Drilled {
  readonly kind: GuestKind
  /** What it was restored as, for the log: `disks`. */
  readonly volumes: string
  /** L0: what the catalogue holds of it. */
  readonly contents: (manifest: Manifest) => string
  /** L2: makes the scratch guest. @throws Fault `damaged`, `exhausted`, `aborted` */
  readonly restore: (context: ClimbContext, reader: BackupReader) => Promise<RestoredScratch>
  /** L3: waits for a system. @returns what was seen of it. @throws Fault `unproven` */
  readonly untilUp: (scratch: Scratch) => Promise<string>
  /** L4: waits for somebody inside. @throws Fault `unproven` */
  readonly untilAnswering: (scratch: Scratch) => Promise<string>
  /** For L5: IPv4 addresses it has by now. */
  readonly addresses: (scratch: Scratch) => Promise<readonly GuestAddress[]>
  /** For L6. @throws Fault `unproven` when there is no such file, or it is larger than `mostBytes` */
  readonly readFile: (scratch: Scratch, path: string, mostBytes: number) => Promise<Uint8Array>
  /** For L6: runs a program inside to its end. */
  readonly runProgram: (scratch: Scratch, path: string, mostBytes: number) => Promise<RanProgram>
  /** Of its run directory, and under which name they become evidence. */
  readonly logs: readonly (readonly [file: string, exhibit: string])[]
  /** Evidence of what was restored. */
  readonly partsExhibit: string
  /** Takes a picture of its screen, where it has one, into its run directory. */
  readonly photograph?: (deps: DrillDeps, scratch: Vmid) => Promise<void>
  /** What took part beside the node itself, with versions. */
  readonly programs: (deps: DrillDeps) => Promise<Readonly<Record<string, string>>>
}

export interface RanProgram {
  readonly code: number | undefined
  readonly output: Uint8Array
}
