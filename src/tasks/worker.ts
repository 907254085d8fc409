/**
 * The process of one task: reads on its standard input what to do, does it, and ends.
 *
 * Started by `runner.ts`; `performance.ts` beside it does the work. When the input ends before it said anything
 * whole, the daemon died before it could say go: nothing was begun, and its successor will find that out.
 */
import { Fault } from '#base/fault.ts'
import { followed } from '#base/trace.ts'
import type { Settings } from '#settings.ts'
import { TaskArchive } from './archive.ts'
import { afterFlag, type Go, recoverFlag } from './go.ts'
import { performTask, recoverTask, type TaskServices } from './performance.ts'
import type { Operations } from './registry.ts'
import { asUpid } from './upid.ts'

export interface WorkerOptions<S extends TaskServices> {
  readonly operations: Operations
  /** Operations get the whole set as their `deps`. */
  readonly buildServices: (settings: Settings) => Promise<S>
  /**
   * Looks at what most tasks look at, so that these do not do it for the first time. Only looks.
   * @param after name of the operation the last task did; empty when nobody knows
   */
  readonly rehearse?: (services: S, after: string) => Promise<unknown>
  readonly settings: Settings
  readonly stdin: AsyncIterable<Uint8Array | string>
  /** Arguments after the entry file. */
  readonly flags: readonly string[]
}

const goBytes = 16 * 1024 * 1024

/** Resolves when the task has ended, or at once when nobody says go. The caller then exits. */
export async function runWorker<S extends TaskServices>(options: WorkerOptions<S>): Promise<void> {
  const { operations, buildServices, rehearse, settings, stdin, flags } = options
  const isRecovery = flags.includes(recoverFlag)
  const abort = new AbortController()
  let isTold = false
  process.on('SIGTERM', () => {
    if (!isTold) process.exit(0)
    // An undo is not interrupted.
    if (!isRecovery) abort.abort()
  })
  // Done while it waits: nobody has to wait for it then.
  const building = buildServices(settings)
  const after = flags.find((flag) => flag.startsWith(afterFlag))?.slice(afterFlag.length) ?? ''
  const rehearsing = building.then(async (services) => isTold || (await rehearse?.(services, after))).catch(() => {})
  const go = await readGo(stdin)
  if (!go) return
  isTold = true
  const services = await building
  // It may be loading modules, which the operation is about to do, too.
  await rehearsing
  const where = { archive: new TaskArchive(settings.stateDir), services, operations, upid: asUpid(go.upid) }
  try {
    const request = { operation: go.operation ?? '', params: go.params ?? null }
    if (isRecovery) await recoverTask(where)
    else if (go.isFollowed !== true) await performTask(where, request, abort.signal)
    else {
      const { way } = await followed(async () => performTask(where, request, abort.signal))
      await where.archive.writeWay(where.upid, way)
    }
  } finally {
    await services.store[Symbol.asyncDispose]()
  }
}

async function readGo(stdin: AsyncIterable<Uint8Array | string>): Promise<Go | undefined> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of stdin) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part
    size += bytes.length
    if (size > goBytes) throw new Fault('too-large', `the parameters of a task may have ${goBytes} bytes`)
    parts.push(bytes)
  }
  const text = Buffer.concat(parts).toString('utf8')
  try {
    const go: unknown = JSON.parse(text)
    return isGo(go) ? go : undefined
  } catch {
    return undefined // Empty or cut off: the writer is dead.
  }
}

function isGo(value: unknown): value is Go {
  return typeof value === 'object' && value !== null && 'upid' in value && typeof value.upid === 'string'
}
