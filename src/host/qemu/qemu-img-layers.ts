/**
 * `qemu-img` on images that consist of several files, and on the snapshots inside them.
 *
 * Invariant: every file is named by the caller, with its format, and nothing behind the last one is opened. What an
 * image's header says about backing files is its guest's word and is never followed.
 */
import { isAbsolute } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Argv, Host } from '../host.ts'
import { changeImage, progressIn } from './qemu-img.ts'

export interface ImageLayer {
  /** Absolute. */
  readonly path: string
  readonly format: 'raw' | 'qcow2'
}
/** The image itself first, then what it is based on. */
export type ImageLayers = readonly [ImageLayer, ...ImageLayer[]]

const changeMs = 10 * 60_000
const convertMs = 24 * 60 * 60_000

/** A new qcow2 image that shows what `backing` holds. `backing` is written into it as it stands and not opened. */
export async function createOverlay(
  host: Host,
  image: {
    readonly path: string
    readonly sizeBytes: number
    readonly backing: string
    readonly backingFormat: 'raw' | 'qcow2'
  },
): Promise<void> {
  const { path, sizeBytes, backing, backingFormat } = image
  if (!isAbsolute(path)) throw new Error(`an image is named by an absolute path, not '${path}'`)
  const base = ['-b', backing, '-F', backingFormat]
  await changeImage(host, ['qemu-img', 'create', '-q', '-u', '-f', 'qcow2', ...base, path, `${sizeBytes}`], {
    timeoutMs: changeMs,
  })
}

/** Takes, goes back to, or removes a snapshot of an image nobody has open. */
export async function changeSnapshot(
  host: Host,
  act: 'take' | 'roll-back' | 'drop',
  layers: ImageLayers,
  tag: string,
): Promise<void> {
  const flag = { take: '-c', 'roll-back': '-a', drop: '-d' }[act]
  await changeImage(host, ['qemu-img', 'snapshot', '-q', flag, tag, imageText(layers)], { timeoutMs: changeMs })
}

export interface LayeredConversion {
  readonly layers: ImageLayers
  /** Copy what this snapshot of the first layer holds. */
  readonly snapshot?: string | undefined
  /** A guest has the image open; allowed only together with a snapshot, which nobody writes to. */
  readonly isOpen?: boolean | undefined
  /** Exists already and is at least as large. */
  readonly target: ImageLayer
  readonly isTargetZero: boolean
  /** KiB per second; 0 and absent: no limit. */
  readonly limitKiB?: number | undefined
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** Copies the content of an image with all its layers into one that stands on its own. @throws Fault `exhausted`, `aborted` */
export async function convertLayers(host: Host, conversion: LayeredConversion): Promise<void> {
  const { layers, snapshot, isOpen = false, target, isTargetZero, limitKiB = 0, onProgress, signal } = conversion
  if (isOpen && snapshot === undefined) throw new Error('an image that is written to cannot be copied')
  const argv: Argv = [
    'qemu-img',
    'convert',
    '-p',
    '-n',
    ...(isTargetZero ? ['--target-is-zero'] : []),
    ...(isOpen ? ['--force-share'] : []),
    ...(limitKiB === 0 ? [] : ['-r', `${limitKiB}K`]),
    ...(snapshot === undefined ? [] : ['-l', `snapshot.name=${snapshot}`]),
    '-O',
    target.format,
    imageText(layers),
    target.path,
  ]
  await changeImage(host, argv, {
    timeoutMs: convertMs,
    signal,
    onLine: (line) => {
      const fraction = progressIn(line)
      if (fraction !== undefined) onProgress?.(fraction)
    },
  })
}

/** Upper bound of what a copy takes where zeros and holes are not stored. */
export async function measureLayers(host: Host, layers: ImageLayers): Promise<number> {
  const argv: Argv = ['qemu-img', 'measure', '--force-share', '--output=json', '-O', 'qcow2', imageText(layers)]
  const facts: unknown = JSON.parse((await host.run(argv, { timeoutMs: changeMs })).stdout)
  const required = typeof facts === 'object' && facts !== null && 'required' in facts ? facts.required : undefined
  if (typeof required !== 'number') throw new Fault('failed', `qemu-img did not say 'required'`)
  return required
}

function imageText(layers: ImageLayers): string {
  return `json:${JSON.stringify(layersToNode(layers))}`
}

/** The image as QEMU opens it. */
function layersToNode([first, ...rest]: readonly ImageLayer[]): object | null {
  if (!first) return null
  if (!isAbsolute(first.path)) throw new Error(`an image is named by an absolute path, not '${first.path}'`)
  const file = { driver: 'file', filename: first.path }
  return { driver: first.format, ...(first.format === 'raw' ? {} : { backing: layersToNode(rest) }), file }
}
