/**
 * The programs that live beside a guest's QEMU, for it alone: its TPM, those that serve its shared folders, and the bus
 * its helpers meet on.
 *
 * Each has the guest's run directory in its arguments, so that it is found whoever started it, and each is put into the
 * guest's control group, so that it shares the guest's limits.
 */
import { rm } from 'node:fs/promises'
import { endProcess, startTimeOf, statOf } from '#host/programs/proc.ts'
import type { Options } from '../config.ts'
import type { OpenFor } from './open-drives.ts'
import { openTpmState } from './open-drives.ts'
import { busConfig, isBus } from './state-bus.ts'
import { hasTpm, tpmLog, tpmProgram, tpmSocket } from './tpm.ts'
import { startTpm } from './tpm-process.ts'
import { folderCount, folderLock, folderLog, folderSocket, foldersOf } from './virtiofs.ts'
import { startFolder } from './virtiofs-process.ts'

export interface BesideRequest extends Pick<OpenFor, 'storage' | 'vmid' | 'uid'> {
  readonly options: Options
  readonly runDir: string
  /** Path of each shared folder. */
  readonly folders: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** How long a TPM that has just lost its QEMU may take to write down what it was told last. */
const tpmGraceMs = 2_000

export function logsBeside(options: Options): string[] {
  return [...foldersOf(options).map(({ name }) => folderLog(name)), ...(hasTpm(options) ? [tpmLog] : [])]
}

/**
 * Starts what the guest's QEMU connects to when it starts.
 * @param onStarted told each pid before the next is started
 */
export async function startBeside(request: BesideRequest, onStarted: (pid: number) => Promise<void>): Promise<void> {
  const { options } = request
  for (const folder of foldersOf(options)) {
    await startFolder({ ...request, folder, source: request.folders[folder.name] ?? '' }, onStarted)
  }
  if (!hasTpm(options)) return
  await onStarted(await startTpm({ ...request, statePath: await openTpmState(options, request) }))
}

/** Whether a process with these arguments is one beside the guest of this run directory. */
export function isBeside(runDir: string): (argv: readonly string[]) => boolean {
  const tpm = `type=unixio,path=${tpmSocket(runDir)},mode=0600`
  const bus = isBus(runDir)
  const folder = `--socket-path=${runDir}/virtiofs`
  return (argv) => argv.includes(tpm) || bus(argv) || argv.some((part) => part.startsWith(folder))
}

/** Ends a process of the guest, whichever it is. */
export async function endOne(pid: number): Promise<void> {
  const isTpm = (await statOf(pid))?.command === tpmProgram
  await endProcess(pid, await startTimeOf(pid), { graceMs: isTpm ? tpmGraceMs : 0 })
}

/** Removes what they leave outside the run directory. */
export async function forgetBeside(runDir: string): Promise<void> {
  await rm(busConfig(runDir), { force: true })
  for (let index = 0; index < folderCount; index += 1) {
    await rm(folderLock(folderSocket(runDir, `virtiofs${index}`)), { force: true })
  }
}
