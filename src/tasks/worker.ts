/**
 * The process of a task: reads on its standard input what to do, does it, and ends, or says that it could do another.
 *
 * Started by `runner.ts`; `performance.ts` beside it does the work. When the input ends before it said anything
 * whole, the daemon died before it could say go: nothing was begun, and its successor will find that out.
 *
 * What a task did first cost it more than what it did: code was read, linked and compiled. The next one finds that done.
 * It finds nothing else: services are built anew for each, and a process that still has something open, printed
 * something, has grown or whose task did not simply succeed does no other.
 */
import { writeSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { followed } from '#base/trace.ts'
import { wordDescriptor } from '#host/programs/detached-child.ts'
import type { Settings } from '#settings.ts'
import { TaskArchive } from './archive.ts'
import { type Go, recoverFlag } from './go.ts'
import { performTask, recoverTask, type TaskServices } from './performance.ts'
import type { Operations } from './registry.ts'
import { asUpid } from './upid.ts'

export interface WorkerOptions<S extends TaskServices> {
  readonly operations: Operations
  /** Operations get the whole set as their `deps`. */
  readonly buildServices: (settings: Settings) => Promise<S>
  readonly settings: Settings
  readonly stdin: AsyncIterable<Uint8Array | string>
  /** Arguments after the entry file. */
  readonly flags: readonly string[]
}

const newline = 0x0a
const goBytes = 16 * MiB
/** One that has grown beyond it gives that back by ending. */
const restingBytes = 192 * MiB

/** Resolves when nobody has another task for it. The caller then exits. */
export async function runWorker<S extends TaskServices>(options: WorkerOptions<S>): Promise<void> {
  const { operations, buildServices, settings, stdin, flags } = options
  const isRecovery = flags.includes(recoverFlag)
  let abort: AbortController | undefined
  process.on('SIGTERM', () => {
    if (!abort) process.exit(0)
    // An undo is not interrupted.
    if (!isRecovery) abort.abort()
  })
  const told = goesIn(stdin)
  for (;;) {
    // Done while it waits: nobody has to wait for it then.
    const building = buildServices(settings)
    building.catch(() => {}) // Whoever is told to begin hears of it.
    const { value: go } = await told.next()
    if (!go) return
    abort = new AbortController()
    const services = await building
    const where = { archive: new TaskArchive(settings.stateDir), services, operations, upid: asUpid(go.upid) }
    let exitstatus = ''
    try {
      const request = { operation: go.operation ?? '', params: go.params ?? null }
      const { signal } = abort
      if (isRecovery) await recoverTask(where)
      else if (go.isFollowed !== true) exitstatus = await performTask(where, request, signal)
      else {
        const { way } = await followed(async () => performTask(where, request, signal))
        await where.archive.writeWay(where.upid, way)
      }
    } finally {
      await services.store[Symbol.asyncDispose]()
    }
    if (exitstatus !== 'OK' || process.memoryUsage.rss() > restingBytes || !(await isAllClosed())) return
    abort = undefined
    sayFree()
  }
}

/** Tells the daemon that this process could do another task. Where it has gone, so does this process when it reads on. */
function sayFree(): void {
  try {
    writeSync(wordDescriptor, '.')
  } catch {
    // It has gone, or does not want to know.
  }
}

/** Whether nothing but its input keeps this process from ending by itself; what is being closed gets a moment for it. */
async function isAllClosed(): Promise<boolean> {
  for (let look = 0; look < 20; look += 1) {
    const [input, ...others] = process.getActiveResourcesInfo()
    if (others.length === 0 && input === 'PipeWrap') return true
    await setTimeout(5)
  }
  return false
}

/** A line each. One that is cut off, or cannot be read, is the last: its writer is dead. */
async function* goesIn(stdin: AsyncIterable<Uint8Array | string>): AsyncGenerator<Go, undefined> {
  let parts: Uint8Array[] = []
  let size = 0
  for await (const part of stdin) {
    let bytes = typeof part === 'string' ? Buffer.from(part) : part
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline)) {
      const go = readGo(Buffer.concat([...parts, bytes.subarray(0, end)]))
      if (!go) return undefined
      yield go
      bytes = bytes.subarray(end + 1)
      parts = []
      size = 0
    }
    size += bytes.length
    if (size > goBytes) throw new Fault('too-large', `the parameters of a task may have ${goBytes} bytes`)
    parts.push(bytes)
  }
  return undefined
}

function readGo(line: Buffer): Go | undefined {
  try {
    const go: unknown = JSON.parse(line.toString('utf8'))
    return isGo(go) ? go : undefined
  } catch {
    return undefined
  }
}

function isGo(value: unknown): value is Go {
  return typeof value === 'object' && value !== null && 'upid' in value && typeof value.upid === 'string'
}
