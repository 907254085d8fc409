/**
 * A program that is run with its owner's rights must be one that only its owner can change, and for root also one
 * that nobody else can put another in the place of: otherwise whoever can is its owner, or root.
 */
import { lstat, realpath } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asFileFault } from '../files.ts'

const [othersWrite, sticky, executable] = [0o022, 0o1000, 0o111]

export interface ProgramOwner {
  readonly uid: number
  readonly gid: number
}

/**
 * Whose rights a plain file may be run with: its owner's.
 * @param called for messages: `hookscript 'local:snippets/a.sh'`
 * @throws Fault `missing`; `denied` saying who else could change what is run
 */
export async function ownerOfProgram(path: string, called: string): Promise<ProgramOwner> {
  const { uid, gid, mode } = await factsOf(path, called)
  if ((mode & othersWrite) !== 0) throw changeable(called, 'its owner', path)
  if (uid === 0) await requireRootsOwnFolders(path, called)
  return { uid, gid }
}

/**
 * The file itself, behind whatever links led to it, to be run as root.
 * @throws Fault `missing`; `denied` saying who else could change the file or a folder above it
 */
export async function rootsProgram(path: string): Promise<string> {
  const real = await realpath(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  const called = `'${path}'`
  const { uid, mode } = await factsOf(real, called)
  if (uid !== 0 || (mode & othersWrite) !== 0) throw changeable(called, 'root', real)
  await requireRootsOwnFolders(real, called)
  return real
}

async function factsOf(path: string, called: string) {
  const facts = await lstat(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (!facts.isFile()) throw new Fault('denied', `${called} is no plain file`)
  if ((facts.mode & executable) === 0) throw new Fault('denied', `${called} is not executable`)
  return facts
}

/** What root runs must be the very file that was looked at. */
async function requireRootsOwnFolders(path: string, called: string): Promise<void> {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const { uid, mode } = await lstat(folder)
    // In a sticky folder nobody can move what is not theirs.
    if (uid !== 0 || ((mode & othersWrite) !== 0 && (mode & sticky) === 0)) throw changeable(called, 'root', folder)
    if (folder === '/') return
  }
}

function changeable(called: string, owner: 'root' | 'its owner', place: string): Fault {
  const chmod = `chmod go-w '${place}'`
  return new Fault('denied', `${called} is not run: others than ${owner} can change '${place}'`, {
    remedy: owner === 'root' ? `Make it root's own: chown root '${place}' && ${chmod}` : chmod,
  })
}
