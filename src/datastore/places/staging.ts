/**
 * A folder of this machine for what is on its way to or from a place elsewhere: it goes with the process, and what a
 * process left that was killed goes with the next one.
 */
import { existsSync } from 'node:fs'
import { lstat, mkdir, readdir, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { asFileFault } from '#host/files.ts'
import { HeldFile } from './held-file.ts'

const heldEnding = '.held'
const attempts = 8

export class Staging implements AsyncDisposable {
  readonly path: string
  readonly #held: HeldFile

  private constructor(path: string, held: HeldFile) {
    this.path = path
    this.#held = held
  }

  /**
   * @param home where, in a folder of the caller's own; among the machine's temporary files when absent
   * @throws Fault `denied` when the folder for it is somebody else's
   */
  static async open(random: Random, home = join(tmpdir(), `hakobune-staging-${userInfo().uid}`)): Promise<Staging> {
    const { uid } = userInfo()
    try {
      await mkdir(home, { recursive: true, mode: 0o700 })
      const facts = await lstat(home)
      // Anybody may have made one of that name first.
      if (!facts.isDirectory() || facts.uid !== uid || (facts.mode & 0o077) !== 0) {
        throw new Fault('denied', `'${home}' is not a folder of yours alone`, { remedy: 'Remove it, or set TMPDIR.' })
      }
      await clearAway(home)
      for (let attempt = 0; attempt < attempts; attempt += 1) {
        const path = join(home, random.uuid())
        const mark = `${path}${heldEnding}`
        const held = HeldFile.tryHold(mark)
        // Between being made and being held, somebody may have taken the mark for a leftover.
        if (!held || !existsSync(mark)) {
          held?.release()
          continue
        }
        await mkdir(path, { mode: 0o700 })
        return new Staging(path, held)
      }
      throw new Fault('unavailable', `no folder can be held in '${home}'`)
    } catch (cause) {
      throw asFileFault(cause, home)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true })
    this.#held.release()
    await rm(`${this.path}${heldEnding}`, { force: true })
  }
}

async function clearAway(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (!name.endsWith(heldEnding)) continue
    const mark = join(home, name)
    using held = HeldFile.tryHold(mark)
    if (!held) continue
    await rm(mark.slice(0, -heldEnding.length), { recursive: true, force: true })
    await rm(mark, { force: true })
  }
}
