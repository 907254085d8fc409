/** The TPM: a program of its own beside QEMU, which keeps what the TPM remembers in a volume (`tpmstate0`). */
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import { driveOf } from './drive.ts'

export const tpmDrive = 'tpmstate0'
export const tpmProgram = 'swtpm'
export const tpmLog = 'swtpm.log'
/** As large as its largest state with room to spare; a storage may give more. */
export const tpmBytes = 4 * 1024 * 1024

export function hasTpm(options: Options): boolean {
  return options[tpmDrive] !== undefined
}

export const tpmSocket = (runDir: string) => `${runDir}/swtpm.sock`

/** The program's command line; it ends when QEMU lets go of it. */
export function tpmCommand(options: Options, statePath: string, runDir: string): string[] {
  const { values } = driveOf(tpmDrive, options[tpmDrive] ?? '')
  return [
    tpmProgram,
    'socket',
    ...(values.version === 'v2.0' ? ['--tpm2'] : []),
    '--tpmstate',
    `backend-uri=file://${statePath}`,
    '--ctrl',
    `type=unixio,path=${tpmSocket(runDir)},mode=0600`,
    '--seccomp',
    'action=kill',
    '--terminate',
  ]
}

export function tpmToArgv(options: Options, runDir: string): string[] {
  if (!hasTpm(options)) return []
  return [
    '-chardev',
    keyed('socket', { id: 'tpm', path: tpmSocket(runDir) }),
    '-tpmdev',
    keyed('emulator', { id: tpmDrive, chardev: 'tpm' }),
    ...device('tpm-tis', { id: 'tpm0', tpmdev: tpmDrive }),
  ]
}
