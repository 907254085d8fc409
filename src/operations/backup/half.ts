/**
 * What a backup asks of a guest's kind: to hold one moment of it, and to be read. A virtual machine has disks, a container
 * trees of files; all else of a backup is the same for both.
 */
import type { BackupType } from '#datastore/backup-id.ts'
import type { BackupWriter } from '#datastore/backup/writer.ts'
import type { Vmid } from '#base/ids.ts'
import type { GuestConfig, Options } from '#guests/config.ts'
import type { GuestKind } from '#guests/kind.ts'
import type { Services } from '#services.ts'
import type { Json } from '#store/store.ts'
import type { BackupInMaking } from './change-records.ts'

export type BackupMode = 'snapshot' | 'suspend' | 'stop'
/** What others may want to hear of in mode `stop`. */
export type StopPhase = 'pre-stop' | 'pre-restart' | 'post-restart'

/** How guests are backed up; the same for all guests of a task. */
export type BackupHow = {
  readonly storage: string
  readonly mode: BackupMode
  readonly notesTemplate?: string | undefined
  readonly protected?: boolean | undefined
  /** KiB per second; 0 for no limit. */
  readonly bwlimit?: number | undefined
  readonly fleecingStorage?: string | undefined
  /** Reads under way at once, for each disk in turn. */
  readonly readsAhead?: number | undefined
  /** Minutes a guest may take to shut down, for mode `stop`. */
  readonly stopWait?: number | undefined
  /** Of containers: patterns of paths that are left out. */
  readonly excludePaths?: readonly string[] | undefined
  /** Of containers: whether temporary files are left out as well. Default: true. */
  readonly excludesTemporary?: boolean | undefined
}

export type BackupDeps = Pick<
  Services,
  'settings' | 'clock' | 'random' | 'host' | 'guests' | 'storage' | 'backup' | 'store'
>

export interface GuestContext {
  readonly deps: BackupDeps
  /** Of the task. */
  readonly upid: string
  readonly how: BackupHow
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
  /** Says what somebody has to look at, although the backup is good. */
  readonly alarm: (text: string) => void
  /** Says what somebody may want to look at. The log has it already. */
  readonly hint: (text: string) => void
  readonly progress: (phase: string, fraction?: number, bytes?: number) => void
  readonly signal: AbortSignal
  readonly onPhase?: ((phase: StopPhase) => Promise<void>) | undefined
}

export interface GuestToBackUp {
  readonly vmid: Vmid
  readonly config: GuestConfig
  readonly wasRunning: boolean
  readonly context: GuestContext
}

/** What was read, for the manifest. */
export interface WhatWasRead {
  /** Milliseconds since 1970: what the backup holds is from then. */
  readonly takenMs: number
  /** For people and drills. */
  readonly facts: { readonly [key: string]: Json }
}

/** A guest made ready to be read. Disposing of it leaves the guest as it was found. */
export interface ReadableGuest extends AsyncDisposable {
  /** Upper bound of what the datastore may have to take in, where that is known. */
  readonly neededBytes?: number | undefined
  /** Reads all of it, once. */
  readonly read: (writer: BackupWriter) => Promise<WhatWasRead>
  /** To be called once the backup is committed. */
  readonly onCommitted?: (() => Promise<void>) | undefined
}

export interface BackupHalf {
  readonly kind: GuestKind
  readonly type: Exclude<BackupType, 'host'>
  /** The file of the backup that holds the configuration. */
  readonly confName: string
  readonly nameOf: (options: Options, vmid: Vmid) => string
  /** The mode it is really done in; says in the log why it is another one. */
  readonly modeFor: (guest: GuestToBackUp) => Promise<BackupMode>
  readonly open: (guest: GuestToBackUp, mode: BackupMode, backup?: BackupInMaking) => Promise<ReadableGuest>
  /** Takes out of a guest whatever a backup of that task put in; harmless when there is nothing, and when it has stopped. */
  readonly leave: (deps: BackupDeps, vmid: Vmid, upid: string) => Promise<void>
}
