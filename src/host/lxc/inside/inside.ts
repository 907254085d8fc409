/**
 * Files of a container, reached as its root reaches them.
 *
 * The kernel judges by who asks, so whoever asks is the container's root: a program in its user namespace (`hand.ts`),
 * with rights over files alone. As root of the node we would read what the container may not (a folder of the node that
 * is mounted inside, the kernel's own files in /proc), and what asks us need have no right to that.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { PassThrough, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { KiB } from '#base/bytes.ts'
import { Fault, type FaultKind } from '#base/fault.ts'
import type { Argv } from '../../host.ts'
import { type IdMap, underIdMap } from '../id-map.ts'
import { withRightsOverFiles } from '../../programs/jail.ts'

/** Whose files, by descriptors the caller keeps open until the hand has started. */
export interface InsidePlace {
  /** Root of its files. */
  readonly root: number
  /** Who its root is: in that user namespace, or by that map; in neither, root of the node. */
  readonly users?: number | IdMap | undefined
}

export interface FileFacts {
  readonly name: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Absent for what the kernel makes up as it is read. */
  readonly sizeBytes?: number
}

export interface ListedFile {
  readonly name: string
  readonly type: string
  readonly mode: string
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: number
  readonly target?: string
}

export interface WrittenFile {
  readonly path: string
  readonly sizeBytes: number
  readonly mode?: number | undefined
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  /** Makes the folders on the way. */
  readonly parents: boolean
}

/** Each is a process; who asks for more waits for nobody and hears so. */
const mostHands = 8
const lineBytes = 4096 * KiB
const usersDescriptor = 4
const nodeDescriptor = 5
let hands = 0
let program: string | undefined

/** @throws Fault in words for people: `missing`, `conflict`, `denied`; `exhausted` when too many are at work */
export async function readInside(
  place: InsidePlace,
  path: string,
  signal?: AbortSignal,
): Promise<{ readonly facts: FileFacts; readonly bytes: Readable }> {
  const hand = startHand(place, { act: 'read', path }, signal)
  const facts = await hand.line<FileFacts>()
  return { facts, bytes: hand.rest() }
}

export async function listInside(
  place: InsidePlace,
  { path, most }: { readonly path: string; readonly most: number },
  signal?: AbortSignal,
): Promise<{ readonly entries: readonly ListedFile[]; readonly isWhole: boolean }> {
  return startHand(place, { act: 'list', path, most }, signal).line()
}

/** The old file or the new one, whatever ends this. */
export async function writeInside(
  place: InsidePlace,
  file: WrittenFile,
  bytes: Readable,
  signal?: AbortSignal,
): Promise<Omit<FileFacts, 'name'>> {
  const hand = startHand(place, { act: 'write', ...file }, signal)
  const [facts] = await Promise.all([hand.line<Omit<FileFacts, 'name'>>(), hand.give(bytes)])
  return facts
}

interface Hand {
  /** What it says first. @throws Fault what it says instead */
  readonly line: <T>() => Promise<T>
  /** What it prints afterwards; broken off when it ends badly. */
  readonly rest: () => Readable
  readonly give: (bytes: Readable) => Promise<void>
}

function startHand({ root, users }: InsidePlace, wish: object, signal?: AbortSignal): Hand {
  signal?.throwIfAborted()
  if (hands >= mostHands) {
    throw new Fault('exhausted', `${mostHands} files of containers are on their way at once: that is all`, {
      remedy: 'Try again when one of them has arrived.',
    })
  }
  program ??= stripTypeScriptTypes(readFileSync(new URL('./hand.ts', import.meta.url), 'utf8'))
  const flags = ['--disable-warning=ExperimentalWarning', '--input-type=module']
  const [name, ...args] = asRootInside(users, [
    `/proc/self/fd/${nodeDescriptor}`,
    ...flags,
    '-e',
    program,
    '--',
    JSON.stringify(wish),
  ])
  const node = openSync(process.execPath, constants.O_RDONLY)
  let child: ChildProcess
  try {
    child = spawn(name, args, {
      stdio: ['pipe', 'pipe', 'pipe', root, typeof users === 'number' ? users : 'ignore', node],
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' },
    })
  } finally {
    closeSync(node)
  }
  return handOf(child, signal)
}

function asRootInside(users: InsidePlace['users'], argv: Argv): Argv {
  const bound = withRightsOverFiles(argv)
  if (users === undefined) return bound
  if (typeof users !== 'number') return underIdMap(users, bound)
  return ['nsenter', `--user=/proc/self/fd/${usersDescriptor}`, '--setuid', '0', '--setgid', '0', '--', ...bound]
}

function handOf(child: ChildProcess, signal: AbortSignal | undefined): Hand {
  const { stdin, stdout, stderr } = child
  if (!stdin || !stdout || !stderr) throw new Error('all three are pipes, as asked for')
  hands += 1
  const kill = () => void child.kill('SIGKILL')
  signal?.addEventListener('abort', kill)
  const said: string[] = []
  stderr.setEncoding('utf8').on('data', (part: string) => said.length < 20 && said.push(part.slice(0, KiB)))
  stdin.on('error', () => {}) // It may end before it has read everything; what it says tells why.
  const ended = once(child, 'close').then(
    () => child.exitCode === 0,
    () => false,
  )
  void ended.finally(() => {
    hands -= 1
    signal?.removeEventListener('abort', kill)
  })
  const broken = () => {
    if (signal?.aborted === true) return new Fault('aborted', 'interrupted', { cause: signal.reason })
    return new Fault('failed', 'the files of the container cannot be reached', { cause: said.join('') })
  }
  return {
    async line<T>(): Promise<T> {
      const line = await lineOf(stdout)
      if (line === undefined) {
        kill()
        await ended
        throw broken()
      }
      const reply = JSON.parse(line) as { fault?: { kind: FaultKind; message: string; remedy?: string } } & T
      if (!reply.fault) return reply
      const { kind, message, remedy } = reply.fault
      throw new Fault(kind, message, remedy === undefined ? {} : { remedy })
    },
    rest() {
      const bytes = new PassThrough({ highWaterMark: 512 * KiB })
      stdout.on('error', (error) => bytes.destroy(error)).pipe(bytes, { end: false })
      void ended.then((isWell) => (isWell ? bytes.end() : bytes.destroy(broken())))
      bytes.once('close', kill)
      return bytes
    },
    give: (bytes) => pipeline(bytes, stdin).catch(() => {}),
  }
}

/** Its first line, or nothing when there is none. */
async function lineOf(stream: Readable): Promise<string | undefined> {
  let bytes = Buffer.alloc(0)
  for (;;) {
    const part: unknown = stream.read()
    if (!Buffer.isBuffer(part)) {
      if (stream.readableEnded || stream.destroyed) return undefined
      await Promise.race([once(stream, 'readable'), once(stream, 'end'), once(stream, 'close')])
      continue
    }
    bytes = Buffer.concat([bytes, part])
    const end = bytes.indexOf(10)
    if (end < 0 && bytes.length > lineBytes) return undefined
    if (end < 0) continue
    if (end + 1 < bytes.length) stream.unshift(bytes.subarray(end + 1))
    return bytes.toString('utf8', 0, end)
  }
}
