/**
 * Starts the program that serves a folder to a guest.
 *
 * It acts for every user of the guest and so cannot have the guest's uid; what it can reach is the folder alone. It
 * starts with the rights to shut itself in (namespaces for mounts, processes and network, the folder as its root, a
 * filter for system calls) and keeps those a file server needs to give files their owners. It ends by itself when its
 * QEMU does.
 */
import { lchown, readFile, stat } from 'node:fs/promises'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { spawnDetached } from '#host/exec.ts'
import { codeOf } from '#host/files.ts'
import { isAlive, startTimeOf } from '#host/programs/proc.ts'
import { asArgv } from './launch.ts'
import { folderCommand, folderLog, folderSocket, type SharedFolder } from './virtiofs.ts'

export interface FolderLaunch {
  readonly folder: SharedFolder
  /** Path on the node. */
  readonly source: string
  readonly uid: number
  readonly runDir: string
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** Where the distribution puts it. */
const program = '/usr/lib/qemu/virtiofsd'
const rights = 'sys_admin setpcap chown dac_override fowner fsetid setgid setuid setfcap'.split(' ')
const confined = [
  'setpriv',
  '--clear-groups',
  '--no-new-privs',
  '--inh-caps=-all',
  `--bounding-set=-all,${rights.map((right) => `+${right}`).join(',')}`,
]

/** Returns once QEMU can connect. @throws Fault `missing` without the program, `failed` with its own last words */
export async function startFolder(
  { folder, source, uid, runDir, timeoutMs, signal }: FolderLaunch,
  onStarted: (pid: number) => Promise<void>,
): Promise<void> {
  await requireProgram(folder.name)
  const socket = folderSocket(runDir, folder.name)
  const log = `${runDir}/${folderLog(folder.name)}`
  const command = asArgv([...confined, ...folderCommand(program, folder, source, socket)])
  const pid = await spawnDetached(command, { outputFile: log, cwd: '/' })
  const startTime = (await startTimeOf(pid)) ?? -1
  await onStarted(pid)
  const listens = async () => {
    const said = await readFile(log, 'utf8')
    if (said.includes('Waiting for vhost-user socket connection')) return true
    if (await isAlive(pid, startTime)) return false
    throw new Fault('failed', `${folder.name}: the folder cannot be served: ${lastLine(said)}`)
  }
  await waitFor(listens, { what: `the server of ${folder.name}`, timeoutMs, everyMs: 5, signal })
  // Made by root for root.
  await lchown(socket, uid, uid)
}

async function requireProgram(name: string): Promise<void> {
  try {
    await stat(program)
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') throw cause
    throw new Fault('missing', `${name}: the node has no '${program}', which serves folders`, {
      cause,
      remedy: 'Install the package qemu-system-common, or take the folder out.',
    })
  }
}

function lastLine(said: string): string {
  return said.trim().split('\n').at(-1) || 'its server said nothing'
}
