/**
 * The state of a running guest goes from one QEMU to another: memory while it runs, pass after pass, then, while it
 * stands still, what is left and its devices. Disks stay where they are; the first lets go of them at the end of the
 * last pass, and only then the other takes them.
 *
 * Afterwards both hold the whole guest and neither runs it. Who is to go on is said by whoever called this.
 */
import { systemClock, waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { GiB } from '#base/bytes.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import type { DriveBitmaps } from './dirty-bitmap.ts'

export interface MigrationProgress {
  readonly sentBytes: number
  readonly remainingBytes: number
  readonly totalBytes: number
  readonly bytesPerSecond: number
  /** How often memory has been gone through. */
  readonly passes: number
}

export interface SendHow {
  /** 0: no limit. */
  readonly bytesPerSecond: number
  /** How long the guest may stand still, as far as QEMU can tell beforehand. */
  readonly downtimeMs: number
  readonly bitmaps: readonly DriveBitmaps[]
  readonly onProgress?: ((progress: MigrationProgress) => void) | undefined
  /** Told when the guest changes its memory faster than it goes, and is allowed to stand still for longer. */
  readonly onLonger?: (downtimeMs: number) => void
  readonly signal?: AbortSignal | undefined
}

interface Migration {
  readonly status?: string
  readonly 'error-desc'?: string
  readonly 'blocked-reasons'?: readonly string[]
  readonly ram?: {
    readonly transferred: number
    readonly remaining: number
    readonly total: number
    readonly mbps: number
    readonly 'dirty-sync-count': number
  }
}

const longestMs = 24 * 60 * 60_000
const pollMs = 250
/** Nothing on one machine is slower; and QEMU wants a number. */
const noLimit = 1024 * GiB
/** After so many passes, and again after as many, a guest that is still not through may stand still twice as long. */
const patiencePasses = 6
const longestDowntimeMs = 30_000
const [failLimitMs, cancelLimitMs] = [10_000, 30_000]

/** What QEMU itself says cannot leave it, a sentence each. */
export async function blockers(monitor: QmpClient): Promise<readonly string[]> {
  return (await ask(monitor))['blocked-reasons'] ?? []
}

/** Lets a QEMU that waits for a state take it at this socket. @param bitmaps that come along with the state */
export async function expectState(
  target: QmpClient,
  socket: string,
  { bitmaps }: Pick<SendHow, 'bitmaps'>,
): Promise<void> {
  await setUp(target, bitmaps, {})
  await target.execute('migrate-incoming', { uri: `unix:${socket}` })
}

/**
 * Sends it, and returns when the guest stands still and all of it was sent.
 * @throws Fault `failed` with QEMU's words; then the guest goes on where it was. After `aborted` it may still be going:
 *   see `takeBack`
 */
export async function sendState(source: QmpClient, socket: string, how: SendHow): Promise<void> {
  const { bytesPerSecond, signal, onProgress, onLonger } = how
  let { downtimeMs } = how
  await setUp(source, how.bitmaps, {
    'max-bandwidth': bytesPerSecond > 0 ? bytesPerSecond : noLimit,
    'downtime-limit': downtimeMs,
  })
  const ended = untilArrived(source, signal)
  await source.execute('migrate', { uri: `unix:${socket}` })
  for (;;) {
    const isOver = await Promise.race([ended.then(() => true), systemClock.sleep(pollMs).then(() => false)])
    if (isOver) return
    const progress = asProgress(await ask(source))
    if (!progress) continue
    onProgress?.(progress)
    const wantedMs = Math.min(longestDowntimeMs, how.downtimeMs * 2 ** Math.floor(progress.passes / patiencePasses))
    if (wantedMs <= downtimeMs) continue
    downtimeMs = wantedMs
    await source.execute('migrate-set-parameters', { 'downtime-limit': downtimeMs })
    onLonger?.(downtimeMs)
  }
}

/** Ask before the state is sent. @throws Fault `failed` when it does not arrive, `unavailable` when QEMU ends */
export function untilArrived(monitor: QmpClient, signal?: AbortSignal): Promise<void> {
  const isOver = ({ data: { status } }: { readonly data: Readonly<Record<string, unknown>> }) =>
    typeof status === 'string' && ['completed', 'failed', 'cancelled'].includes(status)
  const arrived = monitor.waitForEvent('MIGRATION', isOver, longestMs, signal).then(async ({ data }) => {
    if (data.status === 'completed') return
    const { 'error-desc': said = 'it did not say why' } = await ask(monitor)
    throw new Fault('failed', `QEMU: ${said}`)
  })
  // Whoever fails before asks no more.
  arrived.catch(() => {})
  return arrived
}

/** What was sent in all, after the end. */
export async function sentOf(source: QmpClient): Promise<MigrationProgress | undefined> {
  return asProgress(await ask(source))
}

/**
 * Lets the guest go on in the QEMU that was to send it. May run twice. Only when the other is gone, and has never run the
 * guest: then the migration fails by itself. It is called off only if it does not, since QEMU that is called off at
 * the moment it lets go of its disks is not to be trusted with them.
 */
export async function takeBack(source: QmpClient): Promise<void> {
  const patientUntilMs = systemClock.monotonic() + failLimitMs
  const isOver = async () => {
    const { status = 'none' } = await ask(source)
    if (['none', 'completed', 'failed', 'cancelled'].includes(status)) return true
    if (systemClock.monotonic() > patientUntilMs) await source.execute('migrate_cancel')
    return false
  }
  await waitFor(isOver, { what: 'the end of the migration', timeoutMs: failLimitMs + cancelLimitMs })
  const isSettled = async () => {
    const { status } = await source.execute<{ status: string }>('query-status')
    return status === 'finish-migrate' ? undefined : status
  }
  const status = await waitFor(isSettled, { what: 'the end of the migration', timeoutMs: cancelLimitMs })
  if (status === 'postmigrate') await source.execute('cont')
}

async function setUp(monitor: QmpClient, bitmaps: readonly DriveBitmaps[], parameters: object): Promise<void> {
  const capabilities = [
    { capability: 'events', state: true },
    { capability: 'dirty-bitmaps', state: bitmaps.length > 0 },
  ]
  await monitor.execute('migrate-set-capabilities', { capabilities })
  // Numbers stand for the names on the way, where names have a shorter bound than in images.
  const mapping = bitmaps.map(({ node, names }) => ({
    'node-name': node,
    alias: node,
    bitmaps: names.map((name, index) => ({ name, alias: String(index) })),
  }))
  await monitor.execute('migrate-set-parameters', { ...parameters, 'block-bitmap-mapping': mapping })
}

function ask(monitor: QmpClient): Promise<Migration> {
  return monitor.execute<Migration>('query-migrate')
}

function asProgress({ ram }: Migration): MigrationProgress | undefined {
  if (!ram) return undefined
  return {
    sentBytes: ram.transferred,
    remainingBytes: ram.remaining,
    totalBytes: ram.total,
    bytesPerSecond: (ram.mbps * 1_000_000) / 8,
    passes: ram['dirty-sync-count'],
  }
}
