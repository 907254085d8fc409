/** A program root is told to run must be one that only root can change: otherwise whoever can change it is root. */
import { lstat, realpath } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asFileFault } from './files.ts'

const [othersWrite, sticky, executable] = [0o022, 0o1000, 0o111]

/**
 * The file itself, behind whatever links led to it.
 * @throws Fault `missing`; `denied` saying who else could change the file or a folder above it
 */
export async function trustedProgram(path: string): Promise<string> {
  const real = await realpath(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  const facts = await lstat(real)
  if (!facts.isFile()) throw new Fault('denied', `'${path}' is no file`)
  if ((facts.mode & executable) === 0) throw new Fault('denied', `'${path}' is not executable`)
  if (facts.uid !== 0 || (facts.mode & othersWrite) !== 0) throw notRootsOwn(path, real)
  for (let folder = dirname(real); ; folder = dirname(folder)) {
    const { uid, mode } = await lstat(folder)
    // In a sticky folder nobody can move what is not theirs.
    if (uid !== 0 || ((mode & othersWrite) !== 0 && (mode & sticky) === 0)) throw notRootsOwn(path, folder)
    if (folder === '/') return real
  }
}

function notRootsOwn(path: string, place: string): Fault {
  return new Fault('denied', `'${path}' is not run as root: others than root can change '${place}'`, {
    remedy: `Make it root's own: chown root '${place}' && chmod go-w '${place}'`,
  })
}
