/** What `hako datastore` does with backups, once the command line is read. */
import { readFile, stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { parseSize } from '#base/bytes.ts'
import { seconds } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { isSamePoint, newPoint, parsePoint, printPoint, type RestorePoint } from '#datastore/point.ts'
import { type OpenDatastore } from '#datastore/datastore.ts'
import { isRefused } from '#datastore/foreign.ts'
import { backupsHit } from '#datastore/verify/hits.ts'
import { dataBytesOf, type ManifestBody, newStoredBytesOf } from '#datastore/points/manifest.ts'
import { printSecond } from '#datastore/places/place.ts'
import { diskContent } from '#datastore/restore/disk-content.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { restoreDisk } from '#datastore/restore/restore-disk.ts'
import { verifyEverything } from '#datastore/verify/verify-everything.ts'
import { isDamage, verifyBackup, verifyPacks } from '#datastore/verify/verify.ts'
import { asFileFault } from '#host/files.ts'
import { writeNewFile } from '#host/files/new-file.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { say } from '../text.ts'
import { rateOf, shownBytes, textOf } from './at-work.ts'
import { deps } from './deps.ts'
import { addDirectory, isDirectory, restoreFiles, tarOut } from './file-acts.ts'
import type { Outcome } from './line.ts'
import { pointNamed } from './naming.ts'
import { hasKey, secretFrom, withDatastore, withKeys } from './opening.ts'
import { checkedNotes, sizeIn, sizeOf } from './point-acts.ts'
import { type ImageFormat, sourceAt } from './source.ts'

export interface BackupResult {
  readonly backup: string
  readonly size: number
  readonly data: number
  readonly 'new-data': number
  readonly seconds: number
}

/** Backs up images as disks `drive0`, `drive1` and so on, and directories as trees `tree0`, `tree1`. */
export async function backUp(
  directory: string,
  paths: readonly string[],
  parsed: Parsed,
  terminal: Terminal,
): Promise<Outcome> {
  const params = await withExcludesOfFile(parsed.params)
  if (params['dry-run'] === '1') {
    const { wouldBackUp } = await import('./would.ts')
    const rows = await wouldBackUp(paths, params, formatOf(params), terminal)
    return { rows, columns: ['source', 'entries', 'size', 'data', 'excluded', 'mounts'] }
  }
  return { rows: await backUpNow(directory, paths, { ...parsed, params }, terminal) }
}

async function backUpNow(
  directory: string,
  paths: readonly string[],
  parsed: Parsed,
  terminal: Terminal,
): Promise<BackupResult> {
  const { params } = parsed
  const notes = textOf(params.notes)
  if (notes !== undefined) checkedNotes(notes)
  const [first = ''] = paths
  const id =
    textOf(params.id) ??
    (basename(resolve(first)) || 'root').replace(/\.(raw|img|qcow2)$/, '').replace(/[^A-Za-z0-9._-]/g, '-')
  const type = typeOf(textOf(params.type) ?? 'host')
  const startedMs = deps.clock.monotonic()
  return withKeys(directory, parsed, terminal, async (open) => {
    const guest = { namespace: textOf(params.namespace) ?? '', type, id }
    const points = async () => open.datastore.points()
    let made: { readonly point: RestorePoint; readonly body: ManifestBody } | undefined
    while (!made) {
      const point = newPoint(guest, seconds(deps.clock), await points())
      made = await fill(open, point, paths, parsed, terminal).then(
        (body) => ({ point, body }),
        async (fault: unknown) => {
          // Somebody who began in the same second was done first. What was stored stays, and is read once more.
          const isTaken = isFault(fault, 'conflict') && (await points()).some((one) => isSamePoint(one, point))
          if (!isTaken) throw fault
          return undefined
        },
      )
    }
    const { point, body } = made
    // Who may only add has no right to notes: that is no reason to call the backup failed.
    if (notes !== undefined)
      await open.datastore.mark(point, { notes }).catch((cause: unknown) => tell(cause, terminal))
    return {
      backup: printPoint(point),
      size: sizeIn(body),
      data: dataBytesOf(body),
      'new-data': newStoredBytesOf(body),
      seconds: Math.round((deps.clock.monotonic() - startedMs) / 100) / 10,
    }
  })
}

/** Visible with everything in it, or not at all. */
async function fill(
  open: OpenDatastore,
  point: RestorePoint,
  paths: readonly string[],
  parsed: Parsed,
  terminal: Terminal,
): Promise<ManifestBody> {
  const { params } = parsed
  await using writer = await open.begin({ ...point }, { level: levelOf(params) })
  const rateBytesPerSecond = rateOf(params)
  let [drives, trees] = [0, 0]
  for (const path of paths) {
    if (await isDirectory(path)) {
      await addDirectory(writer, { name: `tree${trees++}`, path, parsed }, { terminal, rateBytesPerSecond })
      continue
    }
    await using source = await sourceAt(path, formatOf(params))
    const show = shownBytes(terminal, parsed, basename(path))
    await writer.addDisk(`drive${drives++}`, source, {
      signal: terminal.signal,
      rateBytesPerSecond,
      onProgress: ({ doneBytes, sizeBytes }) => show(doneBytes, sizeBytes),
    })
    await source.requireSame()
  }
  return await writer.commit({ facts: { paths: paths.map((path) => resolve(path)) } })
}

/** A pattern a line; empty lines, and those that begin with #, are none. */
async function withExcludesOfFile(params: Parsed['params']): Promise<Parsed['params']> {
  const path = textOf(params['exclude-file'])
  if (path === undefined) return params
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  const listed = text.split(/\r?\n/).filter((line) => line.trim() !== '' && !line.startsWith('#'))
  return { ...params, exclude: [...[params.exclude ?? []].flat(), ...listed] }
}

function tell(cause: unknown, terminal: Terminal): void {
  if (!(cause instanceof Fault)) throw cause
  terminal.show(cause.message)
}

function typeOf(text: string): RestorePoint['type'] {
  if (text === 'vm' || text === 'ct' || text === 'host') return text
  throw new Fault('invalid', `'${text}' is no type of backup`, { remedy: 'It is one of: vm, ct, host.' })
}

function formatOf(params: Parsed['params']): ImageFormat | undefined {
  const format = textOf(params.format)
  if (format === undefined || format === 'raw' || format === 'qcow2') return format
  throw new Fault('invalid', `'${format}' is no format of images that can be read`, { remedy: 'It is raw or qcow2.' })
}

function levelOf(params: Parsed['params']): number {
  const level = Number(textOf(params.level) ?? 1)
  if (Number.isInteger(level) && level >= 1 && level <= 19) return level
  throw new Fault('invalid', `level: '${String(params.level)}' is no level of compression`, {
    remedy: 'It is 1 to 19.',
  })
}

/** Disks, trees and files of one backup. */
export async function showRows(directory: string, name: string, parsed: Parsed, terminal: Terminal) {
  return withKeys(directory, parsed, terminal, async (open) => {
    const { disks, trees, files } = await open.body(await pointNamed(open.datastore, name))
    return [
      ...[...disks, ...trees].map((part) => ({
        part: part.name,
        size: sizeOf(part),
        data: part.dataBytes,
        'new-data': part.newStoredBytes,
      })),
      ...files.map((file) => ({ part: file.name, size: file.sizeBytes, data: file.sizeBytes, 'new-data': undefined })),
    ]
  })
}

interface VerifiedRow {
  readonly backup: string
  /** `unread`: access to something it needs is refused. */
  readonly verdict: 'whole' | 'mended' | 'damaged' | 'unread'
  readonly chunks?: number
  readonly size?: number
  readonly why?: string
}

export async function verify(directory: string, names: readonly string[], parsed: Parsed, terminal: Terminal) {
  const { params } = parsed
  if (params.packs === '1' || params.budget !== undefined || params['budget-bytes'] !== undefined) {
    if (names.length > 0) throw new Fault('invalid', 'packs are looked at for all backups, not for some')
    return packs(directory, parsed, terminal)
  }
  return withKeys(directory, parsed, terminal, async (open) => {
    if (names.length === 0) return verifyAll(open, parsed, terminal)
    open.keyring.requireReading()
    const onUnwritten = toldOnce(terminal)
    const points = await Promise.all(names.map((name) => pointNamed(open.datastore, name)))
    const rows: VerifiedRow[] = []
    for (const point of points) {
      try {
        const { chunks, bytes } = await verifyBackup(open, point, {
          signal: terminal.signal,
          onUnwritten,
          onProgress: shownBytes(terminal, parsed, printPoint(point)),
        })
        rows.push({ backup: printPoint(point), verdict: 'whole', chunks, size: bytes })
      } catch (fault) {
        if (!isDamage(fault) && !isRefused(fault)) throw fault
        const verdict = isDamage(fault) ? 'damaged' : 'unread'
        rows.push({ backup: printPoint(point), verdict, why: fault.message })
      }
    }
    return { rows, isWhole: rows.every(({ verdict }) => verdict === 'whole') }
  })
}

/** Who may only read is told that nothing of it is kept, and has the verdict all the same. */
function toldOnce({ language, show }: Terminal): (fault: Fault) => void {
  let isTold = false
  return ({ message }) => {
    if (!isTold) show(say(language, 'unwritten', message))
    isTold = true
  }
}

/** Without a key; with one, damage is told by the backups it hits. */
async function packs(directory: string, parsed: Parsed, terminal: Terminal) {
  const { params } = parsed
  const budget = textOf(params['budget-bytes'])
  return withDatastore(directory, parsed, async (datastore) => {
    const { bytes, oldest, ...facts } = await verifyPacks(datastore, {
      signal: terminal.signal,
      budgetMs: durationOf(textOf(params.budget)),
      budgetBytes: budget === undefined ? undefined : parseSize(budget),
      onProgress: shownBytes(terminal, parsed, 'packs'),
      onUnwritten: toldOnce(terminal),
    })
    const rows = { ...facts, size: bytes, ...(oldest !== undefined && { oldest: printSecond(oldest) }) }
    if (facts.damaged.length === 0) return { rows, isWhole: true }
    if (!hasKey(parsed)) return { rows, isWhole: false }
    const open = await datastore.unlock(await secretFrom(params, terminal))
    return { rows: { ...rows, hits: await backupsHit(open, new Set(facts.damaged), terminal.signal) }, isWhole: false }
  })
}

/** Milliseconds. */
function durationOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const [, count, unit] = /^(\d{1,6})(s|m|h)$/.exec(text) ?? []
  const each = { s: 1_000, m: 60_000, h: 3_600_000 }[unit ?? '']
  if (each !== undefined) return Number(count) * each
  throw new Fault('invalid', `budget: '${text}' is no time`, { remedy: 'It is one such as 90s, 10m or 2h.' })
}

async function verifyAll(open: OpenDatastore, parsed: Parsed, terminal: Terminal) {
  const rows: VerifiedRow[] = []
  const onProgress = shownBytes(terminal, parsed, 'packs')
  const options = { signal: terminal.signal, onProgress, onUnwritten: toldOnce(terminal) }
  for await (const { point, found, damage, mended, unread } of verifyEverything(open, options)) {
    const backup = point ? printPoint(point) : 'all'
    if (found) rows.push({ backup, verdict: 'whole', chunks: found.chunks, size: found.bytes })
    else if (mended !== undefined) rows.push({ backup, verdict: 'mended', why: mended })
    else if (unread !== undefined) rows.push({ backup, verdict: 'unread', why: unread })
    else rows.push({ backup, verdict: 'damaged', ...(damage !== undefined && { why: damage }) })
  }
  return { rows, isWhole: rows.every(({ verdict }) => verdict === 'whole' || verdict === 'mended') }
}

/**
 * Writes a disk to a new file, or a tree into an empty folder: what is there already is left alone. What is on a block
 * device goes when its name is typed.
 */
export async function restore(directory: string, name: string, target: string, parsed: Parsed, terminal: Terminal) {
  const path = resolve(target)
  return withKeys(directory, parsed, terminal, async (open) => {
    const point = await pointNamed(open.datastore, name)
    await using reader = await open.open(point)
    const { disk: wanted, tree } = parsed.params
    const isTree =
      tree !== undefined || (wanted === undefined && reader.body.disks.length === 0 && reader.body.trees.length > 0)
    if (target === '-') {
      await (isTree ? tarOut(reader, parsed, terminal) : diskOut(reader, parsed, terminal))
      return undefined
    }
    if (isTree) {
      return restoreFiles(reader, path, parsed, { terminal, rateBytesPerSecond: rateOf(parsed.params) })
    }
    const disk = diskIn(reader, wanted)
    const { sizeBytes } = reader.disk(disk)
    if ((await stat(path).catch(() => undefined))?.isBlockDevice()) {
      const { ontoDevice } = await import('./onto-device.ts')
      return ontoDevice(reader, disk, target, parsed, terminal)
    }
    // Half a disk is worse than none: somebody might start it.
    const written = await writeNewFile(path, async (part) => {
      await part.file.truncate(sizeBytes)
      const show = shownBytes(terminal, parsed, disk)
      return restoreDisk(reader, disk, part.path, {
        signal: terminal.signal,
        rateBytesPerSecond: rateOf(parsed.params),
        onProgress: ({ doneBytes }) => show(doneBytes, sizeBytes),
      })
    })
    return { backup: printPoint(point), disk, target: path, size: sizeBytes, data: written }
  })
}

/** The disk that is named, or the first. */
function diskIn({ body, head }: BackupReader, wanted: string | string[] | undefined): string {
  const disk = textOf(wanted) ?? body.disks[0]?.name
  if (disk !== undefined) return disk
  throw new Fault('invalid', `backup ${printPoint(head.point)} has no disk`)
}

/** A disk as it is, holes as zeros. */
async function diskOut(reader: BackupReader, parsed: Parsed, terminal: Terminal): Promise<void> {
  const disk = diskIn(reader, parsed.params.disk)
  const { sizeBytes } = reader.disk(disk)
  const show = shownBytes(terminal, parsed, disk)
  const onProgress = (done: number) => show(done, sizeBytes)
  const content = Readable.from(diskContent(reader, disk, onProgress), { objectMode: false })
  await pipeline(content, process.stdout, { end: false, signal: terminal.signal })
}

/** Removes a backup at once; its space comes back with `gc`. */
export async function remove(directory: string, name: string, parsed: Parsed): Promise<void> {
  await withDatastore(directory, parsed, async (datastore) => datastore.remove(parsePoint(name)))
}
