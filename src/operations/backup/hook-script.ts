/**
 * A program of root's that is told when a backup begins and ends, as with Proxmox VE: it gets the phase and, for a
 * guest, the mode and the guest's number; the rest is in its environment. See docs/decisions/backup-hook-scripts.md.
 */
import type { GuestKind } from '#guests/kind.ts'
import type { Host } from '#host/host.ts'
import { rootsProgram } from '#host/programs/trusted-program.ts'

export type JobPhase = 'job-init' | 'job-start' | 'job-end' | 'job-abort'
export type GuestPhase =
  | 'backup-start'
  | 'backup-end'
  | 'backup-abort'
  | 'log-end'
  | 'pre-stop'
  | 'pre-restart'
  | 'post-restart'

export interface HookAbout {
  readonly mode: string
  readonly vmid: number
  readonly type: GuestKind
  readonly name: string
  /** Volume id of the backup, as far as it is known. */
  readonly target?: string | undefined
}

export interface Hook {
  /** @throws Fault `failed` with the script's exit code, which ends what it was asked about */
  readonly job: (phase: JobPhase) => Promise<void>
  readonly guest: (phase: GuestPhase, about: HookAbout) => Promise<void>
}

/** Copying a backup elsewhere takes its time. */
const limitMs = 4 * 60 * 60_000

/** Without a script nothing happens. */
export function hookOf(
  script: string | undefined,
  { host, storage, log, signal }: { host: Host; storage: string; log: (line: string) => void; signal: AbortSignal },
): Hook {
  if (script === undefined) return { job: async () => {}, guest: async () => {} }
  const run = async (args: readonly [string, ...string[]], env: Readonly<Record<string, string>>) => {
    // Looked at each time: it may have changed hands since.
    const program = await rootsProgram(script)
    // An end is told also when somebody asked for it.
    const isEnd = args[0].endsWith('-abort') || args[0] === 'log-end'
    const how = { timeoutMs: limitMs, onLine: log, ...(isEnd ? {} : { signal }) }
    await host.run([program, ...args], { env: { STOREID: storage, ...env }, ...how })
  }
  return {
    job: (phase) => run([phase], {}),
    guest: (phase, { mode, vmid, type, name, target }) =>
      run([phase, mode, String(vmid)], {
        VMTYPE: type,
        HOSTNAME: name,
        ...(target === undefined ? {} : { TARGET: target, TARFILE: target }),
      }),
  }
}
