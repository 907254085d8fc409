/**
 * A folder shown at another place, with rules of its own: read-only, without programs, without devices, and with other
 * ids than it has on its disk. By the kernel's newer calls for mounts, through `node:ffi`: the mount gets its rules
 * before anybody sees it, and `mount` of util-linux can shift ids only since 2.39.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { readlink, writeFile } from 'node:fs/promises'
import ffi from 'node:ffi'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { IdMap } from '../lxc/id-map.ts'

export const mountRules = { ro: 0x1n, nosuid: 0x2n, nodev: 0x4n, noexec: 0x8n, noatime: 0x10n } as const
export type MountRule = keyof typeof mountRules

export interface BindMount {
  readonly source: string
  /** A folder that is there. */
  readonly target: string
  readonly rules: readonly MountRule[]
  /** Which id of the machine each id on the disk is (`inside`: on the disk). */
  readonly ids?: IdMap | undefined
}

const [SYS_open_tree, SYS_move_mount, SYS_mount_setattr] = [428n, 429n, 442n]
const OPEN_TREE_CLONE_CLOEXEC = 0o2000001n
const AT_FDCWD = -100n
const AT_EMPTY_PATH = 0x1000n
const MOVE_MOUNT_F_EMPTY_PATH = 4n
const MOUNT_ATTR_IDMAP = 0x10_0000n
const MOUNT_ATTR_ATIME = 0x70n
const [EINVAL, ENOSYS] = [22, 38]

/** Loaded at first use; one symbol, of which each call takes other arguments. */
let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  const call = (words: ('i64' | 'u64' | 'pointer')[]) =>
    ffi.dlopen('libc.so.6', { syscall: { arguments: ['i64', ...words], return: 'i64' } }).functions.syscall
  return {
    openTree: call(['i64', 'pointer', 'u64']),
    moveMount: call(['i64', 'pointer', 'i64', 'pointer', 'u64']),
    setAttr: call(['i64', 'pointer', 'u64', 'pointer', 'u64']),
    errno: ffi.dlopen('libc.so.6', { __errno_location: { arguments: [], return: 'pointer' } }).functions
      .__errno_location,
  }
}

/** @throws Fault `unavailable` where the kernel or the file system cannot do that, `failed` */
export async function bindMount({ source, target, rules, ids }: BindMount): Promise<void> {
  const users = ids && (await userNamespaceOf(ids))
  let tree: number | undefined
  try {
    tree = checked(
      libc().openTree(SYS_open_tree, AT_FDCWD, path(source), OPEN_TREE_CLONE_CLOEXEC),
      `'${source}' cannot be mounted`,
    )
    setRules(tree, rules, users, source)
    checked(
      libc().moveMount(SYS_move_mount, BigInt(tree), path(''), AT_FDCWD, path(target), MOVE_MOUNT_F_EMPTY_PATH),
      `'${target}' cannot become a place for '${source}'`,
    )
  } finally {
    for (const fd of [tree, users]) if (fd !== undefined) closeSync(fd)
  }
}

function setRules(tree: number, rules: readonly MountRule[], users: number | undefined, source: string): void {
  const attributes = Buffer.alloc(32)
  const set = rules.reduce((all, rule) => all | mountRules[rule], users === undefined ? 0n : MOUNT_ATTR_IDMAP)
  attributes.writeBigUInt64LE(set, 0)
  attributes.writeBigUInt64LE(rules.includes('noatime') ? MOUNT_ATTR_ATIME : 0n, 8)
  attributes.writeBigUInt64LE(BigInt(users ?? 0), 24)
  const result = libc().setAttr(SYS_mount_setattr, BigInt(tree), path(''), AT_EMPTY_PATH, attributes, 32n)
  if (Number(result) >= 0) return
  if (users !== undefined && errno() === EINVAL) {
    throw new Fault('unavailable', `the file system of '${source}' cannot be mounted with other ids`, {
      remedy: 'Leave idmap out, or put the volume on ext4, xfs or btrfs.',
    })
  }
  checked(result, `'${source}' cannot be mounted that way`)
}

function path(text: string): Buffer {
  return Buffer.from(`${text}\0`)
}

function errno(): number {
  return ffi.getInt32(libc().errno())
}

function checked(result: bigint, says: string): number {
  if (Number(result) >= 0) return Number(result)
  const code = errno()
  if (code !== ENOSYS) throw new Fault('failed', `${says}: errno ${code}`)
  throw new Fault('unavailable', `${says}: the kernel of this node is too old (5.12 or newer does it)`)
}

/** A descriptor of a user namespace with that map, in which nobody is. */
async function userNamespaceOf(ids: IdMap): Promise<number> {
  // It waits for the end of its input, which comes with our own end as well.
  const child = spawn('unshare', ['--user', 'cat'], {
    stdio: ['pipe', 'ignore', 'ignore'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    cwd: '/',
  })
  const ended = once(child, 'close').catch(() => {})
  try {
    await once(child, 'spawn').catch((cause: unknown) => {
      throw new Fault('failed', 'no user namespace could be made', { cause })
    })
    const [ours, place] = [await readlink('/proc/self/ns/user'), `/proc/${child.pid}`]
    await waitFor(async () => (await readlink(`${place}/ns/user`).catch(() => ours)) !== ours, {
      what: 'a user namespace',
      timeoutMs: 5_000,
      everyMs: 1,
    })
    for (const kind of ['uid', 'gid'] as const) {
      const ranges = ids.filter((range) => range.kind === kind)
      const lines = ranges.map(({ inside, outside, count }) => `${inside} ${outside} ${count}\n`)
      await writeFile(`${place}/${kind}_map`, lines.join('')).catch((cause: unknown) => {
        throw new Fault('invalid', `ids cannot be mapped so: ${lines.join(', ').trim()}`, { cause })
      })
    }
    return openSync(`${place}/ns/user`, 'r')
  } finally {
    child.stdin.end()
    await ended
  }
}
