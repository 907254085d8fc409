/**
 * Files on the disks of backups, without restoring them: a machine for each backup somebody looks into, started when it is
 * asked for and ended when nobody has asked for a while.
 *
 * Machines are children of the daemon and end with it; there is nothing to find again.
 */
import { MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { entriesIn, type FoundEntry } from './entry.ts'
import { FileMachine, type MachineDisk, type MachineNeeds } from './machine.ts'
import type { Question } from './port.ts'

export interface BackupDisks {
  /** Volume id of the backup. */
  readonly from: string
  readonly disks: readonly MachineDisk[]
}

/** A part of a disk that may hold a file system: `raw`, `part/1`, `lvm/group/volume`. */
export interface DiskPlace {
  readonly place: string
  readonly sizeBytes: number
  /** `ext4`, `xfs`, …; empty where none is known. */
  readonly fileSystem: string
}

export interface WhereOnDisk {
  readonly disk: string
  readonly place: string
  /** Each character a byte; '' is the root. */
  readonly path: string
}

const machinesMaximum = 2
const idleMs = 60_000
const placesMaximumBytes = 256 * 1024
/** Some 80,000 entries of a folder. */
const takenInBytes = 8 * MiB
const placeShape = /^(raw|part\/\d{1,3}|lvm\/[A-Za-z0-9+_.-]{1,128}\/[A-Za-z0-9+_.-]{1,128}) (\d{1,16}) ([\w-]{0,32})$/

interface Held {
  readonly machine: Promise<FileMachine>
  readonly slot: number
  /** What its disks are divided into: a backup does not change, and to ask takes the machine a while. */
  readonly places: Map<string, Promise<DiskPlace[]>>
  users: number
  timer: NodeJS.Timeout | undefined
  ending?: Promise<void>
}

export class FileMachines implements AsyncDisposable {
  readonly #needs: MachineNeeds
  readonly #held = new Map<string, Held>()

  constructor(needs: MachineNeeds) {
    this.#needs = needs
  }

  /** What a disk is divided into. @throws Fault `missing` */
  async places(disks: BackupDisks, disk: string): Promise<DiskPlace[]> {
    const known = this.#held.get(disks.from)?.places.get(disk)
    if (known) return known
    const asked = this.#placesOn(disks, disk)
    // The machine is there once somebody asks it.
    const keep = () => this.#held.get(disks.from)?.places.set(disk, asked)
    await asked.then(keep)
    return asked
  }

  async #placesOn(disks: BackupDisks, disk: string): Promise<DiskPlace[]> {
    let text = ''
    for await (const part of this.#ask(disks, 'disk', { disk })) {
      text += part.toString('latin1')
      if (text.length > placesMaximumBytes) throw new Fault('too-large', `disk ${disk} is divided into too much`)
    }
    return text.split('\n').flatMap((line): DiskPlace[] => {
      const [, place, size, fileSystem = ''] = placeShape.exec(line) ?? []
      return place === undefined ? [] : [{ place, sizeBytes: Number(size), fileSystem }]
    })
  }

  /** What is in a folder, or with `isDeep` all below it; paths from there. @throws Fault `invalid` with the machine's words */
  entries(disks: BackupDisks, where: WhereOnDisk, isDeep = false): AsyncGenerator<FoundEntry> {
    return entriesIn(isDeep ? this.#ask(disks, 'tree', where) : takenIn(this.#ask(disks, 'list', where)))
  }

  /** Nothing when there is none. */
  async entry(disks: BackupDisks, where: WhereOnDisk): Promise<FoundEntry | undefined> {
    let found: FoundEntry | undefined
    try {
      // To the end of the answer, or the port it came by is lost.
      for await (const entry of entriesIn(this.#ask(disks, 'stat', where))) found ??= entry
    } catch (fault) {
      if (!isNothingThere(fault)) throw fault
    }
    return found
  }

  /** Content of a file, all of it: a machine that says more or less has lost its way. @throws Fault `unavailable` */
  async *content(disks: BackupDisks, where: WhereOnDisk, sizeBytes: number): AsyncGenerator<Buffer> {
    let left = sizeBytes
    for await (const part of this.#ask(disks, 'read', where)) {
      left -= part.length
      if (left < 0) break
      yield part
    }
    if (left !== 0) throw new Fault('unavailable', 'a file on a disk of the backup has another size than it says')
  }

  async *#ask(disks: BackupDisks, question: Question, where: Partial<WhereOnDisk>): AsyncGenerator<Buffer> {
    const held = await this.#hold(disks.from, disks)
    try {
      const machine = await held.machine
      const serial = machine.serialOf(where.disk ?? '')
      const port = await machine.portFor(question)
      const words = [serial, where.place ?? '-', octal(`/${where.path ?? ''}`)]
      try {
        yield* port.ask(question, ...words)
      } catch (fault) {
        throw isFault(fault, 'invalid') ? toldOf(fault.message.replaceAll(serial, where.disk ?? '')) : fault
      }
    } finally {
      this.#letGo(disks.from, held)
    }
  }

  async #hold(key: string, disks: BackupDisks): Promise<Held> {
    const known = this.#held.get(key)
    if (known && !known.ending) {
      clearTimeout(known.timer)
      known.users += 1
      const isUsable = await known.machine.then(
        // Whoever is at it goes on; a better one is for those who come when nobody is.
        (machine) => machine.isUsable && (known.users > 1 || !machine.isWornOut),
        () => false,
      )
      if (isUsable) return known
      known.users -= 1
    }
    if (known) {
      await this.#end(key, known)
      return this.#hold(key, disks)
    }
    const slot = await this.#freeSlot()
    const machine = FileMachine.start(this.#needs, { ...disks, slot })
    const held: Held = { machine, slot, places: new Map(), users: 1, timer: undefined }
    this.#held.set(key, held)
    machine.catch(() => this.#end(key, held))
    return held
  }

  /** @throws Fault `exhausted` */
  async #freeSlot(): Promise<number> {
    for (let slot = 0; slot < machinesMaximum; slot += 1) {
      if (![...this.#held.values()].some((held) => held.slot === slot)) return slot
    }
    const idle = [...this.#held].find(([, { users, ending }]) => users === 0 || ending !== undefined)
    if (!idle) {
      throw new Fault('exhausted', `files of ${machinesMaximum} backups are being read already`, {
        remedy: 'Try again when those are done.',
      })
    }
    await this.#end(...idle)
    return idle[1].slot
  }

  #letGo(key: string, held: Held): void {
    held.users -= 1
    if (held.users > 0 || held.ending) return
    held.timer = setTimeout(() => void this.#end(key, held), idleMs).unref()
  }

  /** It keeps its place until nothing of it is left. */
  #end(key: string, held: Held): Promise<void> {
    clearTimeout(held.timer)
    held.ending ??= held.machine
      .then(
        (machine) => machine[Symbol.asyncDispose](),
        () => {},
      )
      .finally(() => this.#held.delete(key))
    return held.ending
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const [key, held] of this.#held) await this.#end(key, held)
  }
}

/** What the machine says, by the name the disk has. */
function toldOf(words: string): Fault {
  return new Fault(absence.test(words) ? 'missing' : 'invalid', words)
}

const absence = /^(?:no such entry|there is no )/

/** That there is none, not that the machine lacks something. */
function isNothingThere(fault: unknown): boolean {
  return isFault(fault, 'missing') && absence.test(fault.message)
}

/** @param path each character a byte */
function octal(path: string): string {
  return [...Buffer.from(path, 'latin1')].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')
}

/**
 * Takes an answer in before any of it is passed on, as far as there is room. Who walks a tree looks into one folder while it is
 * being told of the one above: with a port for each, a deep tree would have them all, and wait for another one for ever.
 */
async function* takenIn(answer: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held: Buffer[] = []
  let sizeBytes = 0
  for await (const part of answer) {
    held.push(part)
    sizeBytes += part.length
    if (sizeBytes < takenInBytes) continue
    yield* held
    held = []
  }
  yield* held
}
