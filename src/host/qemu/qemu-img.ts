/**
 * `qemu-img`: verbs on image files, values out.
 *
 * Invariant: no verb lets qemu-img guess a format. A guest writes whatever it likes to the start of its
 * raw disk; a guessed `qcow2` would then open any file of the host as a backing file. Verbs on images of unknown
 * origin run with bounded memory and processor time, because a crafted header can ask for much of both, and without
 * any of root's capabilities but the one to read, so that a hole in the tool is no way into the host.
 *
 * Rejected: trusting `qemu-img info` alone to find references to other files. Releases before the fix of
 * CVE-2024-4467 open a data file while answering; whoever takes in a foreign image reads its header
 * first (`storage/image-header.ts`).
 */
import { isAbsolute } from 'node:path'
import { GiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Argv, Host, RunOptions } from '../host.ts'

/** `vpc` is QEMU's word for VHD. */
export type DiskFormat = 'raw' | 'qcow2' | 'vmdk' | 'vpc'
export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full'

const timeouts = {
  queryMs: 30_000,
  measureMs: 10 * 60_000,
  changeMs: 120_000,
  checkMs: 60 * 60_000,
  convertMs: 24 * 60 * 60_000,
} as const

/** For what reads a foreign image. Without a time, the caller's own limit is the only one. */
function confined(cpuMs?: number): readonly ['setpriv', ...string[]] {
  const time = cpuMs === undefined ? [] : [`--cpu=${cpuMs / 1000}`]
  return [
    'setpriv',
    '--no-new-privs',
    '--inh-caps=-all',
    // A disk belongs to its guest's user, and is read here for its owner.
    '--bounding-set=-all,+dac_read_search',
    '--',
    'prlimit',
    `--as=${2 * GiB}`,
    ...time,
    '--core=0',
    '--',
  ]
}

/** Where a foreign image is: a file, or a part of one. */
export interface ImagePlace {
  /** Absolute. */
  readonly path: string
  readonly format: DiskFormat
  /** A member of an archive. */
  readonly part?: { readonly offset: number; readonly sizeBytes: number } | undefined
}

export interface ImageInfo {
  readonly format: string
  readonly virtualSizeBytes: number
  readonly allocatedBytes: number
  readonly isEncrypted: boolean
  /** Marked as corrupt by its own header. */
  readonly isCorrupt: boolean
  /** Every other file the image makes QEMU open: backing file, data file, extents. */
  readonly refersTo: readonly string[]
}

/** Asks about an image, without opening anything behind it. `format` is never guessed. */
export async function imageInfo(host: Host, place: ImagePlace): Promise<ImageInfo> {
  const argv = ['qemu-img', 'info', '--force-share', '--output=json', imageAlone(place)] as const
  const { stdout } = await host.run([...confined(timeouts.queryMs), ...argv], { timeoutMs: timeouts.queryMs })
  return parseImageInfo(stdout, place.path)
}

/**
 * Reads the JSON of `qemu-img info`.
 * @param path the image's own file, which it may name
 */
export function parseImageInfo(text: string, path?: string): ImageInfo {
  const info = asObject(JSON.parse(text))
  const data = asObject(asObject(info['format-specific'])['data'])
  const isOwn = (name: string | undefined) => name !== undefined && (name === info['filename'] || name === path)
  const extents = Array.isArray(data['extents']) ? data['extents'].map((extent) => asObject(extent)['filename']) : []
  const others = [info['backing-filename'], info['full-backing-filename'], data['data-file'], ...extents]
  const names = others.filter((name): name is string => typeof name === 'string')
  return {
    format: String(info['format']),
    virtualSizeBytes: numberAt(info, 'virtual-size'),
    allocatedBytes: numberAt(info, 'actual-size'),
    isEncrypted: info['encrypted'] === true,
    isCorrupt: data['corrupt'] === true,
    refersTo: [...new Set(names.filter((name) => !isOwn(name) && !isOwn(fileIn(name))))],
  }
}

/** The one file at the bottom of a node QEMU describes as `json:{…}`; nothing for any other name. */
function fileIn(name: string): string | undefined {
  if (!name.startsWith('json:')) return undefined
  try {
    for (let node = asObject(JSON.parse(name.slice('json:'.length))); ; node = asObject(node['file'])) {
      if (typeof node['filename'] === 'string') return node['driver'] === 'file' ? node['filename'] : undefined
      if (node['file'] === undefined) return undefined
    }
  } catch {
    return undefined
  }
}

export interface NewImage {
  readonly path: string
  readonly format: 'raw' | 'qcow2'
  readonly sizeBytes: number
  readonly preallocation?: Preallocation
}

/** Writes an empty image. The path must not hold anything worth keeping. */
export async function createImage(host: Host, image: NewImage): Promise<void> {
  const { path, format, sizeBytes, preallocation = 'off' } = image
  // A raw file has no metadata to lay out.
  const wanted = format === 'raw' && preallocation === 'metadata' ? 'off' : preallocation
  const options = ['-o', `preallocation=${wanted}`]
  await changeImage(host, ['qemu-img', 'create', '-q', '-f', format, ...options, named(path), `${sizeBytes}`], {
    timeoutMs: wanted === 'off' ? timeouts.changeMs : timeouts.convertMs,
  })
}

/** Grows (never shrinks) an image nobody has open. */
export async function growImage(host: Host, path: string, format: 'raw' | 'qcow2', sizeBytes: number): Promise<void> {
  await changeImage(host, ['qemu-img', 'resize', '-q', '-f', format, named(path), `${sizeBytes}`], {
    timeoutMs: timeouts.changeMs,
  })
}

export interface Conversion {
  readonly source: ImagePlace
  /** Exists already and is at least as large as the source. */
  readonly target: { readonly path: string; readonly format: 'raw' | 'qcow2' }
  /** Every byte of the target reads as zero, so zeros of the source need not be written. */
  readonly isTargetZero: boolean
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Copies the content of one image into another.
 * @throws Fault `exhausted` when the target's device is full, `aborted`
 */
export async function convertImage(host: Host, conversion: Conversion): Promise<void> {
  const { source, target, isTargetZero, onProgress, signal } = conversion
  const zero = isTargetZero ? ['--target-is-zero'] : []
  const verb: Argv = [...confined(), 'qemu-img', 'convert', '-p', '-n', ...zero, '-O', target.format]
  await changeImage(host, [...verb, imageAlone(source), named(target.path)], {
    timeoutMs: timeouts.convertMs,
    signal,
    onLine: (line) => {
      const fraction = progressIn(line)
      if (fraction !== undefined) onProgress?.(fraction)
    },
  })
}

/** The last progress report (`(12.50/100%)`) in what `-p` printed, as a fraction. */
export function progressIn(text: string): number | undefined {
  const percent = [...text.matchAll(/\((\d+(?:\.\d+)?)\/100%\)/g)].at(-1)?.[1]
  return percent === undefined ? undefined : Math.min(1, Number(percent) / 100)
}

/** Bytes a copy will take where zeros and holes are not stored. */
export async function measureImage(host: Host, place: ImagePlace): Promise<number> {
  const argv = ['qemu-img', 'measure', '--force-share', '--output=json', '-O', 'qcow2', imageAlone(place)] as const
  const { stdout } = await host.run([...confined(timeouts.measureMs), ...argv], { timeoutMs: timeouts.measureMs })
  return numberAt(asObject(JSON.parse(stdout)), 'required')
}

export interface MapExtent {
  readonly offset: number
  readonly length: number
  /** Reads as zeros. */
  readonly isZero: boolean
  /** Stored in the image rather than a hole. */
  readonly isData: boolean
}

/** Which parts of an image hold data, in order and without gaps. `window` narrows the question. */
export async function mapImage(
  host: Host,
  path: string,
  format: DiskFormat,
  window: { readonly offset: number; readonly length: number },
): Promise<MapExtent[]> {
  const part = [`--start-offset=${window.offset}`, `--max-length=${window.length}`]
  const argv: Argv = ['qemu-img', 'map', '--force-share', '--output=json', ...part, '-f', format, named(path)]
  return parseMap((await host.run(argv, { timeoutMs: timeouts.changeMs })).stdout)
}

/** Reads the JSON of `qemu-img map`. */
export function parseMap(text: string): MapExtent[] {
  const list: unknown = JSON.parse(text)
  if (!Array.isArray(list)) throw new Fault('failed', 'qemu-img map did not answer with a list')
  return list.map((item) => {
    const extent = asObject(item)
    return {
      offset: numberAt(extent, 'start'),
      length: numberAt(extent, 'length'),
      isZero: extent['zero'] === true,
      isData: extent['data'] === true,
    }
  })
}

export type CheckResult =
  | { readonly state: 'sound'; readonly leakedClusters: number }
  | { readonly state: 'damaged'; readonly errors: number }

/** Checks the structure (not the content) of a qcow2 image nobody has open. */
export async function checkImage(host: Host, path: string): Promise<CheckResult> {
  const argv: Argv = ['qemu-img', 'check', '--output=json', '-f', 'qcow2', named(path)]
  // 2: corrupted; 3: space leaked, content sound.
  const { code, stdout } = await host.run(argv, { timeoutMs: timeouts.checkMs, okCodes: [0, 2, 3] })
  const report = asObject(JSON.parse(stdout))
  const count = (key: string) => (typeof report[key] === 'number' ? report[key] : 0)
  return code === 2
    ? { state: 'damaged', errors: count('corruptions') + count('check-errors') }
    : { state: 'sound', leakedClusters: count('leaks') }
}

/** Runs a writing verb; a full device gets the kind a user can act on. */
export async function changeImage(host: Host, argv: Argv, options: RunOptions): Promise<void> {
  try {
    await host.run(argv, options)
  } catch (cause) {
    if (!isFault(cause, 'failed') || !/No space left on device|Disk quota exceeded/.test(cause.message)) throw cause
    throw new Fault('exhausted', `no space left on the device of '${argv.at(-1)}'`, {
      cause,
      remedy: 'Free space there or choose another storage, then try again.',
    })
  }
}

/** A relative name could read as an option or as a protocol (`nbd:`, `json:`). */
function named(path: string): string {
  if (!isAbsolute(path)) throw new Error(`an image is named by an absolute path, not '${path}'`)
  return path
}

/** The image as QEMU opens it: every layer named, and nothing behind it whatever its header says by then. */
export function imageAlone({ path, format, part }: ImagePlace): string {
  const whole = { driver: 'file', filename: named(path) }
  // QEMU counts in sectors; an archive fills up its last one.
  const sectors = part && Math.ceil(part.sizeBytes / 512)
  const file = sectors ? { driver: 'raw', offset: part.offset, size: sectors * 512, file: whole } : whole
  const backing = format === 'raw' ? {} : { backing: null }
  return `json:${JSON.stringify({ driver: format, ...backing, file })}`
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

function numberAt(object: Record<string, unknown>, key: string): number {
  const value = object[key]
  if (typeof value !== 'number') throw new Fault('failed', `qemu-img did not say '${key}'`)
  return value
}
