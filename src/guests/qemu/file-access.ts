/** How QEMU may read and write the file of a drive: what the machine and the file system it lies on are good for. */
import { constants } from 'node:fs'
import { open, stat, statfs } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { isSummedUp } from '#host/disks/btrfs.ts'
import { codeOf } from '#host/files.ts'
import { mayUseRings } from '#host/native.ts'

export interface FileAccess {
  /** False where the file system cannot bypass the page cache (some overlays), or must not (btrfs): then it is used. */
  readonly canBypassCache: boolean
  /** Whether requests may be queued with the kernel (io_uring), which costs less than a thread for each. */
  readonly canUseRing: boolean
}

/** Magic numbers of SMB shares: rings give trouble there since Linux 5.15, and Proxmox VE leaves them out as well. */
const sharesOfSmb = new Set([0x517b, 0xff534d42, 0xfe534d42])

/** @throws Fault `missing` when there is no such file */
export async function accessTo(path: string): Promise<FileAccess> {
  try {
    return { canBypassCache: await canBypassCache(path), canUseRing: await canUseRing(path) }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') throw new Fault('missing', `disk image '${path}' does not exist`, { cause })
    throw cause
  }
}

async function canBypassCache(path: string): Promise<boolean> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_DIRECT)
    await file.close()
    return !(await isSummedUp(path))
  } catch (cause) {
    if (codeOf(cause) === 'EINVAL') return false
    throw cause
  }
}

/** Devices are left to threads: on LVM's rings are known to hang. */
async function canUseRing(path: string): Promise<boolean> {
  return (await stat(path)).isFile() && !sharesOfSmb.has((await statfs(path)).type) && mayUseRings()
}
