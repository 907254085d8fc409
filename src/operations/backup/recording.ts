/** Puts the plan of records into a running guest's QEMU, or into the images of a stopped one, and takes it back. */
import { isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { copyBitmap, dirtyBitmaps, removeBitmap, startBitmap } from '#guests/qemu/dirty-bitmap.ts'
import { isFirmwareDrive } from '#guests/qemu/drive.ts'
import type { Host } from '#host/host.ts'
import type { ImagePlace } from '#host/qemu/qemu-img.ts'
import { addStoredBitmap, removeStoredBitmaps, storedBitmaps } from '#host/qemu/qemu-img-bitmaps.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import { type BackupInMaking, type DiskRecord, planRecords, type RecordPlan } from './change-records.ts'
import { readRecordOf } from './point-in-time.ts'

interface Recorded {
  plan: RecordPlan
  isStarted: boolean
  changedBytes?: number
}

/** Records in a guest that runs. */
export class LiveRecording {
  readonly #disks: ReadonlyMap<string, Recorded>

  private constructor(disks: ReadonlyMap<string, Recorded>) {
    this.#disks = disks
  }

  /** Looks at what is there, and removes what is of no use to anybody. */
  static async prepare(
    monitor: QmpClient,
    drives: readonly string[],
    backup: BackupInMaking,
    random: Random,
  ): Promise<LiveRecording> {
    const disks = new Map<string, Recorded>()
    for (const drive of drives) {
      if (isFirmwareDrive(drive)) continue
      const plan = planRecords(await dirtyBitmaps(monitor, drive), backup, { disk: drive, random })
      for (const name of plan.useless) await succeeds(() => removeBitmap(monitor, drive, name))
      disks.set(drive, { plan, isStarted: false })
    }
    return new LiveRecording(disks)
  }

  /** To be called before the moment, as shortly as may be. */
  async start(monitor: QmpClient): Promise<void> {
    for (const [drive, disk] of this.#disks) {
      disk.isStarted = await succeeds(() => startBitmap(monitor, drive, disk.plan.starts))
    }
  }

  /** To be called after the moment: what has changed until then, at least, stands still from now on. */
  async hold(monitor: QmpClient): Promise<void> {
    for (const [drive, disk] of this.#disks) {
      const { since } = disk.plan
      if (!since) continue
      if (!(await succeeds(() => copyBitmap(monitor, drive, since.record, readRecordOf(drive))))) {
        disk.plan = { ...disk.plan, since: undefined, reason: 'QEMU does not copy it' }
        continue
      }
      const held = (await dirtyBitmaps(monitor, drive)).find(({ name }) => name === readRecordOf(drive))
      disk.changedBytes = held?.dirtyBytes ?? 0
    }
  }

  of(drive: string): DiskRecord {
    return diskRecord(this.#disks.get(drive))
  }

  /** The backup is committed. */
  async keep(monitor: QmpClient): Promise<void> {
    for (const [drive, { plan }] of this.#disks) {
      for (const name of plan.replaced) await removeBitmap(monitor, drive, name)
    }
  }

  /** There will be no such backup. */
  async forget(monitor: QmpClient): Promise<void> {
    for (const [drive, { plan }] of this.#disks) await removeBitmap(monitor, drive, plan.starts)
  }
}

/** A record in the image of a stopped guest. */
export class StoredRecording {
  readonly #host: Host
  readonly #image: ImagePlace
  readonly #disk: Recorded

  private constructor(host: Host, image: ImagePlace, disk: Recorded) {
    this.#host = host
    this.#image = image
    this.#disk = disk
  }

  /**
   * Looks at what is there. In the image of a guest that ran, and will run again, it begins a record; that of a guest
   * that is off is only read, and what is there goes on being true.
   */
  static async open(
    host: Host,
    image: ImagePlace,
    backup: BackupInMaking,
    about: { readonly disk: string; readonly random: Random; readonly begins: boolean },
  ): Promise<StoredRecording> {
    const plan = planRecords(await storedBitmaps(host, image), backup, about)
    if (!about.begins) return new StoredRecording(host, image, { plan, isStarted: false })
    const isStarted = await succeeds(async () => {
      await removeStoredBitmaps(host, image, plan.useless)
      await addStoredBitmap(host, image, plan.starts)
    })
    return new StoredRecording(host, image, { plan, isStarted })
  }

  get record(): DiskRecord {
    return diskRecord(this.#disk)
  }

  async keep(): Promise<void> {
    if (!this.#disk.isStarted) return
    await removeStoredBitmaps(this.#host, this.#image, this.#disk.plan.replaced)
  }

  async forget(): Promise<void> {
    const { plan, isStarted } = this.#disk
    if (isStarted) await removeStoredBitmaps(this.#host, this.#image, [plan.starts])
  }
}

function diskRecord(disk: Recorded | undefined): DiskRecord {
  if (!disk) return {}
  const { plan, isStarted, changedBytes } = disk
  return { since: plan.since, reason: plan.reason, record: isStarted ? plan.starts : undefined, changedBytes }
}

/** A disk that takes no record is read whole the next time; that is no reason not to back it up. */
async function succeeds(act: () => Promise<void>): Promise<boolean> {
  try {
    await act()
    return true
  } catch (cause) {
    if (isFault(cause, 'failed') || isFault(cause, 'exhausted')) return false
    throw cause
  }
}
