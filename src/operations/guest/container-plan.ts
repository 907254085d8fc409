/**
 * What a container that is restored will be made of: which of its mounts get a volume with content, which an empty one,
 * and what cannot come back. Pure; all that is left out is told.
 */
import { formatSize, GiB, humanSize } from '#base/bytes.ts'
import { invalid } from '#base/fault.ts'
import { splitVolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { isRootOnly } from '#guests/lxc/options.ts'
import {
  isMountName,
  type Mount,
  mountOf,
  mountsOf,
  printMount,
  rememberedSize,
  wishOf,
} from '#guests/lxc/mountpoint.ts'

/** What is kept of a container, wherever. */
export interface KeptTrees {
  /** As it was configured. */
  readonly options: Options
  /** Bytes of data in each tree, by the name of its mount; undefined where only restoring it tells. */
  readonly trees: ReadonlyMap<string, number | undefined>
}

export interface RestoreWish {
  /** Where volumes go; without one, each where it was. */
  readonly storage?: string | undefined
  /** Options that differ from the kept ones; mounts may ask for new volumes. */
  readonly overrides?: Options | undefined
  /** Whether what root alone may set comes back. */
  readonly isRoot: boolean
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
}

export type ContainerPlan = {
  /** With folders of the node, and without volumes. */
  readonly options: Record<string, string>
  /** Mounts that ask for new volumes. */
  readonly wishes: Record<string, string>
  /** Those of them that have content. */
  readonly trees: readonly string[]
}

/** @throws Fault `invalid` naming the mount that cannot be, or is too small for what goes into it */
export function planContainer(kept: KeptTrees, wish: RestoreWish): ContainerPlan {
  const { overrides = {}, log } = wish
  const options: Record<string, string> = { ...optionsOf(kept.options, wish), ...withoutMounts(overrides) }
  const wishes: Record<string, string> = {}
  const names = new Set([...mountNamesOf(kept.options), ...mountNamesOf(overrides)])
  for (const name of names) {
    const given = overrides[name]
    const text = given === undefined ? mountAgain(name, kept, wish) : requireNew(name, given)
    if (text === undefined) continue
    if (wishOf(mountOf(name, text)).kind === 'path') options[name] = text
    else wishes[name] = text
  }
  if (wishes.rootfs === undefined) {
    throw invalid({ ostemplate: 'it holds no root file system of a container' })
  }
  const trees = [...kept.trees.keys()].filter((name) => wishes[name] !== undefined)
  for (const name of kept.trees.keys()) {
    if (!trees.includes(name)) log(`the content of ${name} stays in the backup: nothing of the container takes it`)
  }
  for (const name of trees) requireRoom(name, wishes[name] ?? '', kept.trees.get(name))
  return { options, wishes, trees }
}

/** What root alone may set must not come to a container by way of a restore. */
function optionsOf(options: Options, { isRoot, overrides = {}, warn }: RestoreWish): Options {
  const kept = Object.entries(withoutMounts(options)).filter(([name, value]) => {
    // Of the container that was; snapshots are not in a backup.
    if (/^(unused\d+|lock|parent|snapshots)$/.test(name)) return false
    if (name === 'template') {
      warn('the guest was a template and is an ordinary guest now')
      return false
    }
    if (isRoot || overrides[name] !== undefined || !isRootOnly(name, value)) return true
    warn(`${name} is left out: only root can set it`)
    return false
  })
  return Object.fromEntries(kept)
}

function withoutMounts(options: Options): Options {
  return Object.fromEntries(Object.entries(options).filter(([name]) => !isMountName(name)))
}

function mountNamesOf(options: Options): string[] {
  return mountsOf(options).map(({ name }) => name)
}

/** A mount as it was, with a new volume where it had one; nothing when it cannot come back. */
function mountAgain(name: string, { options, trees }: KeptTrees, wish: RestoreWish): string | undefined {
  const { isRoot, storage, warn } = wish
  const text = options[name] ?? ''
  const mount = mountOf(name, text)
  const was = wishOf(mount)
  if (was.kind === 'path') {
    if (isRoot) return text
    warn(`${name} is left out: only root can mount a folder of the node`)
    return undefined
  }
  if (!trees.has(name)) {
    warn(`${name} is left out: the backup does not hold it. Mount a new volume on '${mount.path}' if it is needed.`)
    return undefined
  }
  const place = storage ?? (was.kind === 'volume' ? splitVolumeId(was.volid).storage : was.storage)
  return emptyLike(mount, place)
}

/** A wish for a volume of the same kind and size. */
function emptyLike(mount: Mount, storage: string): string {
  return printMount(mount, { volume: `${storage}:${rememberedSize(mount) / GiB}`, size: undefined })
}

/** Old volumes are replaced once the new ones are whole, so none can be the new one. */
function requireNew(name: string, text: string): string {
  if (wishOf(mountOf(name, text)).kind !== 'volume') return text
  throw invalid(
    { [name]: 'a restored container gets volumes of its own' },
    { remedy: `Say where and how large: --${name} <storage>:<GiB>.` },
  )
}

function requireRoom(name: string, text: string, dataBytes: number | undefined): void {
  const wish = wishOf(mountOf(name, text))
  if (wish.kind !== 'allocate' || wish.sizeBytes === 0 || dataBytes === undefined) return
  if (wish.sizeBytes >= dataBytes) return
  throw invalid({
    [name]: `${formatSize(wish.sizeBytes)} is too small: the backup holds ${humanSize(dataBytes)} for it`,
  })
}
