/** What `hako datastore` does with files in backups: backs directories up, lists, fetches and restores what was in them. */
import { mkdir, readdir, rmdir, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { Readable, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { constants, createZstdCompress } from 'node:zlib'
import { humanSize } from '#base/bytes.ts'
import { Fault, messageOf } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { archiveOf } from '#backup/archive.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import type { BackupWriter } from '#datastore/backup/writer.ts'
import { printPoint } from '#datastore/point.ts'
import { dataBytesOf } from '#datastore/points/manifest.ts'
import { bytesOf, textOf as shown, type TreeEntry, type TreeReader } from '#datastore/tree/reader.ts'
import { restoreTree } from '#datastore/tree/restore.ts'
import { treeSource } from '#datastore/tree/source.ts'
import { tarOf } from '#datastore/tree/tar.ts'
import { zipOf } from '#datastore/tree/zip.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { machine } from '#host/exec.ts'
import { pour, writeNewFile } from '#host/files/new-file.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { progressOn } from '../progress.ts'
import { say } from '../text.ts'
import { pointNamed } from './naming.ts'
import { withKeys } from './opening.ts'

const textOf = (value: string | string[] | undefined) => (typeof value === 'string' ? value : undefined)
const listMaximum = 100_000
const tornShown = 5
const forms = ['tar', 'tar.zst', 'zip'] as const

export async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false
}

export const leavesCaches = (params: Parsed['params']) => params['exclude-caches'] === '1'

/** Adds a directory as a tree, and says what of it is not in the backup. */
export async function addDirectory(
  writer: BackupWriter,
  { name, path, parsed: { params, global } }: { readonly name: string; readonly path: string; readonly parsed: Parsed },
  { terminal, rateBytesPerSecond }: { readonly terminal: Terminal; readonly rateBytesPerSecond: number | undefined },
): Promise<void> {
  const { language, signal } = terminal
  const { exclude = [] } = params
  const show = progressOn(terminal, { isQuiet: global.quiet })
  const source = treeSource({ root: resolve(path), excludes: [exclude].flat(), leavesCaches: leavesCaches(params) })
  const torn: string[] = []
  const { notes } = await writer.addTree(name, source, {
    signal,
    onTorn: (file) => torn.push(file),
    rateBytesPerSecond,
    onProgress: ({ dataBytes: bytes }) => show({ phase: basename(path), bytes }),
  })
  const { mounts, excluded } = notes
  if (mounts + excluded > 0) terminal.show(say(language, 'treeNotes', path, String(excluded), String(mounts)))
  if (torn.length === 0) return
  const some = torn.slice(0, tornShown).join(', ')
  terminal.show(say(language, 'tornFiles', path, String(torn.length), torn.length > tornShown ? `${some}, …` : some))
}

/** Of the tree that is named, or the only one there can be meant. @throws Fault `missing` */
function treeIn(reader: BackupReader, params: Parsed['params']): TreeReader {
  const { trees } = reader.body
  const name = textOf(params.tree) ?? trees.find((tree) => tree.name === 'rootfs')?.name ?? trees[0]?.name
  if (name !== undefined) return reader.tree(name)
  throw new Fault('invalid', `backup ${printPoint(reader.head.point)} has no files, but disks`, {
    remedy: 'Restore a disk of it, and look into that.',
  })
}

/** What is in a folder of a backup; of anything else itself. */
export async function fileRows(
  [directory, name, path = '/']: readonly [directory: string, backup: string, path: string | undefined],
  parsed: Parsed,
  terminal: Terminal,
) {
  return withKeys(directory, parsed, terminal, async (open) => {
    await using reader = await open.open(await pointNamed(open.datastore, name))
    const tree = treeIn(reader, parsed.params)
    const entry = await tree.entry(bytesOf(path))
    const rows: Awaited<ReturnType<typeof rowOf>>[] = []
    if (entry.kind !== 'directory') return [await rowOf(tree, entry)]
    for await (const one of tree.list(entry.path)) {
      if (rows.length === listMaximum) throw new Fault('too-large', `'${path}' has more than ${listMaximum} entries`)
      rows.push(await rowOf(tree, one))
    }
    return rows
  })
}

async function rowOf(tree: TreeReader, { path, name, kind, target, ...own }: TreeEntry) {
  // The facts of a file stand with the first of its names.
  const { mode, uid, gid, sizeBytes, modified } = kind === 'hard link' ? await tree.entry(target ?? '') : own
  return {
    name: kind === 'directory' ? `${shown(name)}/` : shown(name),
    path: `/${shown(path)}`,
    type: kind,
    mode: mode.toString(8).padStart(4, '0'),
    uid,
    gid,
    size: sizeBytes,
    mtime: modified.seconds,
    target: target === undefined ? undefined : shown(target),
  }
}

/** Writes a file as it is, or a folder as an archive, to a new file or to standard output (`-`). */
export async function fetch(
  [directory, name, path, to]: readonly [directory: string, backup: string, path: string, to: string | undefined],
  parsed: Parsed,
  terminal: Terminal,
): Promise<void> {
  const form = forms.find((one) => one === (textOf(parsed.params.form) ?? 'tar'))
  if (!form) throw new Fault('invalid', `form: '${String(parsed.params.form)}' is none of ${forms.join(', ')}`)
  await withKeys(directory, parsed, terminal, async (open) => {
    await using reader = await open.open(await pointNamed(open.datastore, name))
    const tree = treeIn(reader, parsed.params)
    const { content, fileName } = await contentAt(reader, tree, bytesOf(path), form)
    const isPacked = form === 'tar.zst' && fileName.endsWith('.tar.zst')
    await deliver({ content, fileName, isPacked }, to, terminal)
  })
}

/** Writes a guest's backup as an archive that other platforms read, to a new file or to standard output (`-`). */
export async function exportArchive(
  [directory, name, to]: readonly [directory: string, backup: string, to: string | undefined],
  parsed: Parsed,
  terminal: Terminal,
): Promise<void> {
  await withKeys(directory, parsed, terminal, async (open) => {
    await using reader = await open.open(await pointNamed(open.datastore, name))
    const { fileName, bytes } = await archiveOf(reader, systemRandom)
    const kind = fileName.slice(fileName.lastIndexOf('.') + 1)
    const format = textOf(parsed.params.format) ?? `${kind}.zst`
    if (format !== kind && format !== `${kind}.zst`) {
      throw new Fault('invalid', `format: '${format}' cannot hold this backup`, {
        remedy: `It is ${kind}.zst or ${kind}.`,
      })
    }
    const isPacked = format !== kind
    const show = progressOn(terminal, { isQuiet: parsed.global.quiet })
    const content = counted(bytes, (done) => {
      // What is around the data of the guest is small.
      show({ phase: fileName, fraction: Math.min(1, done / Math.max(1, dataBytesOf(reader.body))), bytes: done })
    })
    await deliver({ content, fileName: isPacked ? `${fileName}.zst` : fileName, isPacked }, to, terminal)
  })
}

async function* counted(content: AsyncGenerator<Buffer>, onBytes: (done: number) => void): AsyncGenerator<Buffer> {
  let done = 0
  for await (const part of content) {
    yield part
    done += part.length
    onBytes(done)
  }
}

interface Delivery {
  readonly content: AsyncGenerator<Buffer>
  readonly fileName: string
  readonly isPacked: boolean
}

async function deliver({ content, fileName, isPacked }: Delivery, to: string | undefined, terminal: Terminal) {
  const from = Readable.from(content, { objectMode: false })
  // Archives of others have no sums of their own over what is in them.
  const steps = isPacked ? [createZstdCompress({ params: { [constants.ZSTD_c_checksumFlag]: 1 } })] : []
  if (to === '-') {
    await pipeline([from, ...steps, process.stdout], { end: false, signal: terminal.signal })
    return
  }
  const target = to === undefined ? fileName : (await isDirectory(to)) ? join(to, fileName) : to
  const bytes = await saved(from, steps, { target, signal: terminal.signal })
  terminal.show(`${target}: ${humanSize(bytes)}`)
}

/** A whole tree as an archive, to standard output. */
export async function tarOut(reader: BackupReader, { params }: Parsed, terminal: Terminal): Promise<void> {
  const { name } = treeIn(reader, params).facts
  await deliver({ content: tarOf(reader, name, ''), fileName: `${name}.tar`, isPacked: false }, '-', terminal)
}

async function contentAt(
  reader: BackupReader,
  tree: TreeReader,
  path: string,
  form: (typeof forms)[number],
): Promise<{ readonly content: AsyncGenerator<Buffer>; readonly fileName: string }> {
  const entry = await tree.entry(path)
  const fileName = shown(entry.path.slice(entry.path.lastIndexOf('/') + 1)) || tree.facts.name
  if (entry.kind === 'file' || entry.kind === 'hard link') return { content: tree.content(entry), fileName }
  if (entry.kind !== 'directory') {
    throw new Fault('invalid', `'/${shown(path)}' is neither a file nor a folder: it is a ${entry.kind}`)
  }
  const { name } = tree.facts
  const text = shown(path)
  const content = form === 'zip' ? zipOf(reader, name, text, fileName) : tarOf(reader, name, text)
  return { content, fileName: `${fileName}.${form}` }
}

/** Whole under its name, or not at all. @returns bytes */
async function saved(
  from: Readable,
  steps: readonly Transform[],
  { target, signal }: { readonly target: string; readonly signal: AbortSignal },
): Promise<number> {
  try {
    return await writeNewFile(target, ({ file }) => pour(file, [from, ...steps], signal))
  } catch (fault) {
    if (fault instanceof Fault) throw fault
    throw new Fault(signal.aborted ? 'aborted' : 'failed', messageOf(fault), { cause: fault })
  }
}

/** Writes a tree into a folder that is empty, or not there yet. What was half done is removed. */
export async function restoreFiles(
  reader: BackupReader,
  target: string,
  parsed: Parsed,
  { terminal, rateBytesPerSecond }: { readonly terminal: Terminal; readonly rateBytesPerSecond: number | undefined },
) {
  const { params, global } = parsed
  const { facts } = treeIn(reader, params)
  const show = progressOn(terminal, { isQuiet: global.quiet })
  const isMade = await mkdir(target, { mode: 0o700 }).then(
    () => true,
    (cause: unknown) => {
      if (codeOf(cause) === 'EEXIST') return false
      throw asFileFault(cause, target)
    },
  )
  const before: readonly string[] = await readdir(target).catch((cause: unknown) => {
    throw asFileFault(cause, target)
  })
  try {
    const { files, entries, writtenBytes, leftOut, attributesLeftOut } = await restoreTree(reader, facts.name, {
      target,
      signal: terminal.signal,
      rateBytesPerSecond,
      onProgress: ({ fraction, writtenBytes: bytes }) => show({ phase: facts.name, fraction, bytes }),
    })
    const out = { 'left-out': leftOut + attributesLeftOut }
    return {
      backup: printPoint(reader.head.point),
      tree: facts.name,
      target,
      entries,
      files,
      data: writtenBytes,
      ...out,
    }
  } catch (fault) {
    // Half a tree looks like a whole one.
    if (!before.some((name) => name !== 'lost+found')) {
      for (const name of await readdir(target))
        if (!before.includes(name)) await removeTree(machine(), join(target, name))
      if (isMade) await rmdir(target).catch(() => {})
    }
    throw fault
  }
}
