/**
 * Starts the TPM of a guest: under the guest's uid and as stripped as its QEMU, since it reads what the guest sends.
 * It ends by itself when its QEMU does.
 */
import { stat } from 'node:fs/promises'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { spawnDetached } from '#host/exec.ts'
import { codeOf, readForeignFile } from '#host/files.ts'
import { isAlive, startTimeOf } from '#host/programs/proc.ts'
import type { Options } from '../config.ts'
import { asArgv, lastWordsBytes, stripped } from './launch.ts'
import { tpmCommand, tpmLog, tpmSocket } from './tpm.ts'

export interface TpmLaunch {
  readonly options: Options
  /** A raw image the guest's uid may write to. */
  readonly statePath: string
  readonly uid: number
  readonly runDir: string
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** @returns its pid, once QEMU can connect. @throws Fault `failed` with its own last words */
export async function startTpm({ options, statePath, uid, runDir, timeoutMs, signal }: TpmLaunch): Promise<number> {
  const command = asArgv([...stripped(uid), ...tpmCommand(options, statePath, runDir)])
  const pid = await spawnDetached(command, { outputFile: `${runDir}/${tpmLog}`, cwd: '/' })
  const startTime = (await startTimeOf(pid)) ?? -1
  const listens = async () => {
    try {
      return (await stat(tpmSocket(runDir))).isSocket()
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT') throw cause
      if (!(await isAlive(pid, startTime))) throw await refusal(runDir)
      return false
    }
  }
  await waitFor(listens, { what: 'the TPM', timeoutMs, everyMs: 5, signal })
  return pid
}

async function refusal(runDir: string): Promise<Fault> {
  const text = (await readForeignFile(`${runDir}/${tpmLog}`, lastWordsBytes))?.toString('utf8') ?? ''
  const said = text.trim().split('\n').at(-1)
  return new Fault('failed', `the TPM did not start: ${said === undefined || said === '' ? 'it said nothing' : said}`)
}
