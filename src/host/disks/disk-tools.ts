/** What is written to whole disks: partition tables, file systems, and nothing at all. */
import { MiB } from '#base/bytes.ts'
import type { Host } from '../host.ts'
import { runTool } from '../tool.ts'

export type FileSystem = 'ext4' | 'xfs'

const longMs = 600_000
/** Where programs look for what a disk is: far beyond the first and last sectors. */
const clearedBytes = 200 * MiB

/** An empty GUID partition table. Refused by the kernel while anybody uses the disk. */
export async function makeTable(host: Host, disk: string, guid?: string): Promise<void> {
  const id = guid === undefined ? '' : `label-id: ${guid}\n`
  await runTool(host, ['sfdisk', '--quiet', '--no-tell-kernel', disk], { input: `label: gpt\n${id}` })
}

export async function makeFileSystem(host: Host, kind: FileSystem, device: string, uuid: string): Promise<void> {
  const options = { timeoutMs: longMs }
  if (kind === 'ext4') await host.run(['mkfs.ext4', '-q', '-F', '-U', uuid, device], options)
  else await runTool(host, ['mkfs.xfs', '-q', '-f', '-m', `uuid=${uuid}`, device], options)
}

/** Takes away what tells programs what a device holds. Refused by the kernel while anybody has it for themselves. */
export async function removeSignatures(host: Host, device: string): Promise<void> {
  await host.run(['wipefs', '--all', '--quiet', device])
}

/** Zeros over the beginning, so that not even remains of what was there are found. */
export async function clearBeginning(
  host: Host,
  device: string,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<void> {
  const blocks = Math.floor(Math.min(sizeBytes, clearedBytes) / MiB)
  const to = [`of=${device}`, 'bs=1M', `count=${blocks}`, 'conv=fdatasync', 'status=none']
  await host.run(['dd', 'if=/dev/zero', ...to], { timeoutMs: longMs, signal })
}

/** The kernel forgets partitions that are no longer there. Devices without partitions answer with an error. */
export async function readTableAgain(host: Host, disk: string): Promise<void> {
  await host.run(['blockdev', '--rereadpt', disk], { okCodes: [0, 1] })
}
