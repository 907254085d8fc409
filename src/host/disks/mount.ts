/**
 * Images mounted for as long as a scope lasts.
 *
 * `await using mounted = await mountImage(…)` leaves neither mount nor loop device behind, whatever
 * happens inside. The loop device is the kernel's to end: it is marked to vanish with its mount, so a
 * crash that skips the scope leaves one mount, which `unmountBelow` finds.
 */
import { readFile } from 'node:fs/promises'
import { dirname, relative } from 'node:path'
import { Fault } from '#base/fault.ts'
import { waitFor } from '#base/clock.ts'
import { makeDirectory } from '../files.ts'
import type { Host } from '../host.ts'

/** Of a slow disk and a large memory. */
const writeOutLimitMs = 10 * 60_000

export interface MountImage {
  /** A raw image, or a block device. */
  readonly image: string
  /** Where to; made when absent. */
  readonly target: string
  readonly isReadOnly?: boolean
  /** Where in the image the file system begins and how long it is: a partition. */
  readonly offsetBytes?: number
  readonly sizeBytes?: number
  /** Default: found out by the kernel. */
  readonly fileSystem?: string
  /** More of mount's options, such as `noload`. */
  readonly options?: readonly string[]
}

export interface Mounted extends AsyncDisposable {
  readonly target: string
}

/** @throws Fault `failed` with mount's complaint: no file system, not enough rights, no loop device. */
export async function mountImage(host: Host, wish: MountImage): Promise<Mounted> {
  const { image, target, isReadOnly = false, offsetBytes, sizeBytes, fileSystem } = wish
  await makeDirectory(target, 0o700)
  const options = ['loop', isReadOnly ? 'ro' : 'rw', 'nosuid', 'nodev', ...(wish.options ?? [])]
  if (offsetBytes !== undefined) options.push(`offset=${offsetBytes}`)
  if (sizeBytes !== undefined) options.push(`sizelimit=${sizeBytes}`)
  const kind = fileSystem === undefined ? [] : ['-t', fileSystem]
  await host.run(['mount', ...kind, '-o', options.join(','), image, target])
  return { target, [Symbol.asyncDispose]: () => unmount(host, target) }
}

/** Mounts a raw image until somebody unmounts it; the loop device goes with the mount. */
export async function mountLoop(
  host: Host,
  { image, target, options }: { readonly image: string; readonly target: string; readonly options: readonly string[] },
): Promise<void> {
  await makeDirectory(target)
  await host.run(['mount', '-o', ['loop', ...options].join(','), image, target])
}

export interface Overlay {
  /** Takes what is written. */
  readonly upper: string
  readonly work: string
  /** Only read; the nearest first. */
  readonly lowers: readonly string[]
  readonly target: string
}

/**
 * Mounts folders on top of one another until somebody unmounts them.
 *
 * Only root of the node can say anything to the kernel about how layers belong together (attributes `trusted.*`, which a
 * user namespace never may write), and what a layer says of others by such attributes is believed for whiteouts and
 * opaque folders alone, never for another place (`redirect_dir`) or another file's content (`metacopy`).
 */
export async function mountOverlay(host: Host, { upper, work, lowers, target }: Overlay): Promise<void> {
  await makeDirectory(target)
  const all = [upper, work, ...lowers]
  // Paths of people may hold what separates options; from here on they are names of ours.
  const cwd = commonFolder(all)
  const [over, own, ...under] = all.map((path) => relative(cwd, path))
  const layers = [`lowerdir=${under.join(':')}`, `upperdir=${over}`, `workdir=${own}`]
  const how = ['rw', 'nodev', 'redirect_dir=nofollow', 'metacopy=off', 'index=off', ...layers]
  await host.run(['mount', '-t', 'overlay', '-o', how.join(','), 'overlay', target], { cwd })
}

function commonFolder(paths: readonly string[]): string {
  const [first = [], ...others] = paths.map((path) => dirname(path).split('/'))
  const end = first.findIndex((part, at) => others.some((parts) => parts[at] !== part))
  return (end === -1 ? first : first.slice(0, end)).join('/') || '/'
}

/** Lets the loop device behind a mount see that its image has grown, and returns it. */
export async function growLoopOf(host: Host, target: string): Promise<string> {
  const { stdout } = await host.run(['findmnt', '--noheadings', '--output', 'SOURCE', '--mountpoint', target])
  const device = stdout.trim()
  await host.run(['losetup', '--set-capacity', device])
  return device
}

/**
 * Holds a mounted file system still, with everything on its disk, so that a copy of the disk is as after a clean
 * unmount. Who writes to it waits until `thaw`.
 */
export async function freeze(host: Host, target: string): Promise<void> {
  await host.run(['fsfreeze', '--freeze', target])
}

/** Undoes `freeze`. Idempotent. */
export async function thaw(host: Host, target: string): Promise<void> {
  const { code, stderr } = await host.run(['fsfreeze', '--unfreeze', target], { okCodes: [0, 1] })
  if (code !== 0 && !/Invalid argument/.test(stderr)) {
    throw new Fault('failed', `'${target}' could not be thawed: ${stderr.trim()}`)
  }
}

/** Writes out what a mounted file system holds in memory. */
export async function writeOut(host: Host, target: string): Promise<void> {
  await host.run(['sync', '--file-system', target], { timeoutMs: writeOutLimitMs })
}

/** Unmounts, asking again while somebody still uses it. Idempotent. @throws Fault `timeout` when in use for long. */
export async function unmount(host: Host, target: string): Promise<void> {
  await waitFor(
    async () => {
      if (!(await mountPoints()).includes(target)) return true
      const { code, stderr } = await host.run(['umount', target], { okCodes: [0, 1, 32] })
      if (code !== 0 && !/busy|not mounted/.test(stderr)) {
        throw new Fault('failed', `'${target}' could not be unmounted: ${stderr.trim()}`)
      }
      return false
    },
    { what: `unmounting '${target}', which is in use`, timeoutMs: 10_000 },
  )
}

/** Unmounts everything at or below a directory, innermost first. Idempotent. */
export async function unmountBelow(host: Host, directory: string): Promise<void> {
  const below = (await mountPoints()).filter((path) => path === directory || path.startsWith(`${directory}/`))
  for (const path of below.toReversed()) await unmount(host, path)
}

/** Where something is mounted now, in the order it was mounted. */
export async function mountPoints(): Promise<string[]> {
  return parseMountPoints(await readFile('/proc/self/mountinfo', 'utf8'))
}

/** The fifth word of each line; blanks and the like appear as three octal digits after a backslash. */
export function parseMountPoints(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter(Boolean)
    .map((path) => path.replaceAll(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 8))))
}
