/** What is known of a guest at one moment. */
import type { Vmid } from '#base/ids.ts'
import type { Filling, KeptMemory, Options } from './config.ts'
import type { GuestKind } from './kind.ts'

export interface RunningFacts {
  readonly state: 'running'
  /** Of QEMU, or of a container's init. */
  readonly pid: number
  /** `running`, `paused`, `prelaunch`, `io-error`, … as QEMU says; a container is `running` or `frozen`. */
  readonly qmpStatus: string
  readonly uptimeSeconds: number
  /** Share of the guest's processors in use, 0 to 1. */
  readonly cpu: number
  /** Memory the guest uses, by its own account where its balloon driver speaks. */
  readonly memoryBytes: number
  /** Memory the node spends on it. */
  readonly hostMemoryBytes: number
  readonly netInBytes: number
  readonly netOutBytes: number
  readonly diskReadBytes: number
  readonly diskWriteBytes: number
  /** Swap space in use; of a virtual machine its own affair. */
  readonly swapBytes: number
  /** Used in the file system of a container; nobody knows of a virtual machine. */
  readonly diskBytes: number
  /** Size of that file system; 0 when nobody knows. */
  readonly diskSizeBytes: number
  /** Of virtual machines; empty for a container. */
  readonly machine: string
  readonly qemuVersion: string
  /** An update has replaced the program it runs in. */
  readonly isOutdated: boolean
}

export type GuestState = RunningFacts | { readonly state: 'stopped' }

/** A guest with its state. */
export interface GuestStatus {
  readonly vmid: Vmid
  readonly kind: GuestKind
  readonly name: string
  /** In force: what the running guest has, not what is pending. The same holds for what follows from them below. */
  readonly options: Options
  /** What somebody is doing to it (`create`, `backup`), if anything. */
  readonly lock: string | undefined
  readonly isTemplate: boolean
  readonly tags: string | undefined
  readonly processors: number
  readonly maxMemoryBytes: number
  /** Of containers. */
  readonly maxSwapBytes: number
  /** Size of the disk it boots from, or of its root file system. */
  readonly maxDiskBytes: number
  readonly state: GuestState
}

/** As `GuestStatus`, for lists. */
export type GuestSummary = GuestStatus

export interface StartOptions {
  /** Network namespace the guest's cards are in: an isolated network for a drill. */
  readonly netns?: string
  /** Joins every card to this bridge instead of its own. */
  readonly bridge?: string
  /** Only these cards get a cable; the others are present and unplugged. */
  readonly onlyNics?: readonly string[]
  /** Goes on from the memory kept under this name, on the machine it was kept on. */
  readonly memory?: KeptMemory & { readonly tag: string }
  /** What its disks still lack, and where it is. */
  readonly filling?: Filling
  /** What the system inside is told as its name instead of its own, so that it takes the machine for the one it knows. */
  readonly toldName?: string | undefined
  /** What a container says on its console is kept, the last of it, in `console.log`; a virtual machine's always is. */
  readonly keepsConsole?: boolean
  /** Task that starts it; an undo of that task may then stop it. */
  readonly startedBy?: string
  readonly log?: (line: string) => void
  readonly signal?: AbortSignal
  readonly timeoutMs?: number
}
