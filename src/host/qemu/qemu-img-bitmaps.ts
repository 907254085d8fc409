/** Dirty bitmaps stored in qcow2 images that nobody has open. */
import { KiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { changeImage, type ImagePlace, imageAlone } from './qemu-img.ts'

export interface StoredBitmap {
  readonly name: string
  /** False after a crash of who had the image open. */
  readonly isWhole: boolean
}

const limitMs = 120_000

export async function storedBitmaps(host: Host, image: ImagePlace): Promise<StoredBitmap[]> {
  const argv = ['qemu-img', 'info', '--force-share', '--output=json', imageAlone(image)] as const
  return parseBitmaps((await host.run(argv, { timeoutMs: limitMs })).stdout)
}

/** Reads the JSON of `qemu-img info`. */
export function parseBitmaps(text: string): StoredBitmap[] {
  const list = at(at(at(JSON.parse(text), 'format-specific'), 'data'), 'bitmaps') ?? []
  if (!Array.isArray(list)) throw new Fault('failed', 'qemu-img info did not list bitmaps')
  return list.map((item: unknown) => {
    const [name, flags] = [at(item, 'name'), at(item, 'flags')]
    if (typeof name !== 'string' || !Array.isArray(flags)) throw new Fault('failed', 'qemu-img told of an odd bitmap')
    return { name, isWhole: flags.includes('auto') && !flags.includes('in-use') }
  })
}

/** Every write is recorded from now on, by whatever program that knows bitmaps. */
export async function addStoredBitmap(host: Host, image: ImagePlace, name: string): Promise<void> {
  const argv = ['qemu-img', 'bitmap', '--add', `--granularity=${64 * KiB}`, imageAlone(image), name] as const
  await changeImage(host, argv, { timeoutMs: limitMs })
}

export async function removeStoredBitmaps(host: Host, image: ImagePlace, names: readonly string[]): Promise<void> {
  for (const name of names) {
    await changeImage(host, ['qemu-img', 'bitmap', '--remove', imageAlone(image), name], { timeoutMs: limitMs })
  }
}

/** Before the image is made another one: QEMU refuses that as long as there are any. */
export async function removeAllBitmaps(host: Host, image: ImagePlace): Promise<void> {
  if (image.format !== 'qcow2') return
  const names = (await storedBitmaps(host, image)).map(({ name }) => name)
  await removeStoredBitmaps(host, image, names)
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined
}
