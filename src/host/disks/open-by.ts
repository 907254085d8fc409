/** Who has a device open: the kernel tells of every process which files it holds. */
import { readdir, readFile, readlink, stat } from 'node:fs/promises'

export interface Opener {
  readonly pid: number
  readonly program: string
}

/** Processes that have the block device open, this one apart. Those that end meanwhile are no answer. */
export async function openersOf(device: string): Promise<Opener[]> {
  const { rdev } = await stat(device)
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const openers: Opener[] = []
  for (const pid of pids) {
    if (pid === process.pid || !(await hasOpen(pid, rdev))) continue
    openers.push({ pid, program: (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim() })
  }
  return openers
}

async function hasOpen(pid: number, rdev: number): Promise<boolean> {
  const directory = `/proc/${pid}/fd`
  for (const name of await readdir(directory).catch((): string[] => [])) {
    const path = `${directory}/${name}`
    const target = await readlink(path).catch(() => '')
    // Only devices are worth a closer look: others are pipes, sockets and files by the thousand.
    if (!target.startsWith('/dev/')) continue
    const facts = await stat(path).catch(() => undefined)
    if (facts?.isBlockDevice() && facts.rdev === rdev) return true
  }
  return false
}
