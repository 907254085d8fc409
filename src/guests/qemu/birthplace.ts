/**
 * Where the processes of a guest are, and how they are found.
 *
 * A process is known by the paths in its arguments. Those of one that is to take a guest over from another name a
 * directory of its own, its birthplace, beside the guest's; when it has taken over, that directory becomes the guest's,
 * and its arguments stay what they are. So a directory that still has the name of a birthplace belongs to a process that
 * has not taken over.
 */
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { codeOf } from '#host/files.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { isBeside } from './beside.ts'
import { qmpSockets } from './command-line.ts'

const mark = '.to-'
/** What stands for itself in a pattern. */
const literal = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\/]/g, '\\$&')

/** Makes a directory that no process of the guest has had before. */
export async function makeBirthplace(runDir: string): Promise<string> {
  return mkdtemp(`${runDir}${mark}`)
}

/** Directories of processes that have not taken over. */
export async function birthplacesOf(runDir: string): Promise<string[]> {
  const parent = dirname(runDir)
  try {
    const names = await readdir(parent)
    return names.filter((name) => name.startsWith(`${basename(runDir)}${mark}`)).map((name) => join(parent, name))
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return []
    throw cause
  }
}

/** Where the directory of a process goes that the guest has left. */
export const leftOf = (runDir: string) => `${runDir}.left`

/** For a guest that ended, or whose move was given up. */
export async function removeBirthplaces(runDir: string): Promise<void> {
  for (const place of [...(await birthplacesOf(runDir)), leftOf(runDir)])
    await rm(place, { recursive: true, force: true })
}

/** Pids of QEMUs of the guest with this run directory, and of the programs beside them, wherever they were born. */
export async function processesOf(runDir: string): Promise<number[]> {
  const anywhere = new RegExp(`${literal(runDir)}(?:${literal(mark)}[A-Za-z0-9]{6})?/`, 'g')
  const isOne = isOf(runDir)
  return findProcesses((argv) => isOne(argv.map((part) => part.replaceAll(anywhere, `${runDir}/`))))
}

/** As `processesOf`, of exactly that directory. */
export async function bornIn(place: string): Promise<number[]> {
  return findProcesses(isOf(place))
}

function isOf(directory: string): (argv: readonly string[]) => boolean {
  const socket = `unix:${join(directory, qmpSockets.short)},server=on,wait=off`
  const beside = isBeside(directory)
  return (argv) => argv.includes(socket) || beside(argv)
}
