/**
 * A restore point as one archive in the form other platforms read: `vzdump-lxc-….tar` of a container, `vzdump-qemu-….vma` of
 * a virtual machine. Nothing in it needs us, or a key.
 */
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { printPoint } from '#datastore/point.ts'
import { tarOfParts } from '#datastore/tree/tar.ts'
import { vmaOf } from './vma/writer.ts'

export interface Archive {
  /** `vzdump-lxc-100-2026_11_20-10_00_00.tar` */
  readonly fileName: string
  readonly bytes: AsyncGenerator<Buffer>
}

/** It is the file system's own, and there wherever one is made. */
const lostAndFound = 'lost+found'

/** @throws Fault `invalid` for what is no guest's */
export async function archiveOf(reader: BackupReader, random: Random): Promise<Archive> {
  const { point } = reader.head
  const { trees, disks } = reader.body
  const stem = (kind: string) => `vzdump-${kind}-${point.id}-${timeText(point.time)}`
  if (point.type === 'ct' && trees.length > 0) return { fileName: `${stem('lxc')}.tar`, bytes: await tarIn(reader) }
  if (point.type === 'vm' && disks.length > 0) {
    return { fileName: `${stem('qemu')}.vma`, bytes: await vmaIn(reader, random) }
  }
  throw new Fault('invalid', `backup ${printPoint(point)} is of no guest that could be taken elsewhere as an archive`, {
    remedy: 'Restore its disks, or fetch its files.',
  })
}

/** All mount points in their places, and the configuration in front, where it is looked for. */
async function tarIn(reader: BackupReader): Promise<AsyncGenerator<Buffer>> {
  const content = await configIn(reader, 'pct.conf')
  const conf = { name: './etc/vzdump/pct.conf', content, modified: reader.head.point.time }
  const { mounts } = reader.body.facts
  const paths: Readonly<Record<string, unknown>> = typeof mounts === 'object' && mounts !== null ? { ...mounts } : {}
  const parts = reader.body.trees.map(({ name }) => {
    const path = paths[name] ?? (name === 'rootfs' ? '/' : undefined)
    if (typeof path !== 'string') throw new Fault('damaged', `nothing says where tree ${name} of the backup belongs`)
    return { name, path: '', as: `./${path.replace(/^\/+|\/+$/g, '')}`.replace(/\/$/, ''), without: lostAndFound }
  })
  // What is mounted in another comes after it.
  const inOrder = parts.toSorted((one, other) => one.as.split('/').length - other.as.split('/').length)
  return tarOfParts(reader, inOrder, [conf])
}

async function vmaIn(reader: BackupReader, random: Random): Promise<AsyncGenerator<Buffer>> {
  const devices = reader.body.disks.map(({ name }) => ({ disk: name, name: `drive-${name}` }))
  // Which device is which drive; where it was says nothing elsewhere.
  const map = devices.map(({ disk, name }) => `#qmdump#map:${disk}:${name}::raw:\n`).join('')
  const conf = Buffer.concat([await configIn(reader, 'qemu-server.conf'), Buffer.from(map)])
  return vmaOf(reader, {
    uuid: Buffer.from(random.bytes(16)),
    ctime: reader.head.point.time,
    configs: new Map([['qemu-server.conf', conf]]),
    devices,
  })
}

async function configIn(reader: BackupReader, name: string): Promise<Buffer> {
  if (reader.body.files.some((file) => file.name === name)) return reader.file(name)
  throw new Fault(
    'invalid',
    `backup ${printPoint(reader.head.point)} has no ${name}, without which an archive is of no use`,
    {
      remedy: 'Restore its disks, or fetch its files.',
    },
  )
}

/** In the time of this machine, as such archives are called. */
function timeText(seconds: number): string {
  const at = new Date(seconds * 1000)
  const two = (number: number) => String(number).padStart(2, '0')
  const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join('_')
  return `${day}-${[at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join('_')}`
}
