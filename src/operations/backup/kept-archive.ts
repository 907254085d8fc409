/**
 * A container in an archive of Proxmox VE (`vzdump-lxc-…`): a tar of its files with all mount points in their places, and
 * its configuration in a file beside them. The archive is believed no more than a template is.
 */
import { basename } from 'node:path'
import { humanSize, KiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { idMapOf } from '#guests/lxc/idmap.ts'
import { isMountName, mountOf, wishOf } from '#guests/lxc/mountpoint.ts'
import { isOption, optionErrors } from '#guests/lxc/options.ts'
import { fileInArchive, unpackTemplate } from '#guests/lxc/unpack.ts'
import type { StorageService } from '#storage/service.ts'
import { parseForeignConf } from './foreign-conf.ts'
import type { KeptContainer } from './kept-container.ts'

/** Folder of what is in an archive beside the files of the container. */
const beside = 'etc/vzdump'
const confPath = `${beside}/pct.conf`
const confBytes = 64 * KiB

export interface ArchiveTelling {
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
  readonly signal: AbortSignal
}

/** @throws Fault `missing`, `invalid`, `damaged` */
export async function openKeptArchive(
  storage: Pick<StorageService, 'location'>,
  archive: string,
  telling: ArchiveTelling,
): Promise<KeptContainer> {
  const path = await archivePath(storage, archive)
  const options = translated(parseForeignConf(await confIn(path, telling.signal)), telling)
  const names = Object.keys(options).filter((name) => isMountName(name) && isInArchive(name, options[name] ?? ''))
  return {
    says: `the archive ${basename(path)}`,
    options,
    // How much is of which mount only unpacking tells.
    trees: new Map(names.map((name) => [name, undefined])),
    async fill({ options: made, inWhole, rateBytesPerSecond, inRoom, log, onProgress, signal }) {
      if (rateBytesPerSecond !== undefined)
        log('an archive is unpacked as fast as it can be read: bwlimit has no effect')
      const { entries, bytes, leftOut } = await inRoom('rootfs', () =>
        inWhole((rootfs) =>
          unpackTemplate({
            archive: path,
            rootfs,
            idMap: idMapOf(made),
            keepsDevices: idMapOf(made) === undefined,
            without: beside,
            signal,
            onProgress: ({ fraction }) => onProgress('files', fraction),
          }),
        ),
      )
      log(
        `${entries} files, ${humanSize(bytes)}${leftOut === 0 ? '' : `; ${leftOut} left out: devices, and what lies below /dev`}`,
      )
    },
    async [Symbol.asyncDispose]() {},
  }
}

/** As it stands in the archive, for a person to read. */
export async function containerConfText(
  storage: Pick<StorageService, 'location'>,
  archive: string,
  signal: AbortSignal,
): Promise<string> {
  const content = await confIn(await archivePath(storage, archive), signal)
  parseForeignConf(content)
  return content.toString('utf8')
}

/** Where the archive is on the node. */
export async function archivePath(storage: Pick<StorageService, 'location'>, archive: string): Promise<string> {
  return archive.startsWith('/') ? archive : (await storage.location(asVolumeId(archive))).path
}

async function confIn(path: string, signal: AbortSignal): Promise<Buffer> {
  const content = await fileInArchive(path, confPath, { mostBytes: confBytes, signal })
  if (content === undefined) throw new Fault('damaged', `the archive has no configuration './${confPath}'`)
  return content
}

/** A folder of the node, or a volume backups leave out, is in no archive. */
function isInArchive(name: string, text: string): boolean {
  const mount = mountOf(name, text)
  return wishOf(mount).kind === 'volume' && (name === 'rootfs' || mount.values.backup === true)
}

/** Everything that is left out is told, with its reason; nothing of a value is. */
function translated(
  { options, snapshots, strange }: ReturnType<typeof parseForeignConf>,
  { log, warn }: ArchiveTelling,
): Options {
  if (snapshots.length > 0) log(`snapshots are not in the archive and are left out: ${snapshots.join(', ')}`)
  if (strange.length > 0)
    warn(`${strange.length} lines of the configuration are left out: they are none, or for LXC alone`)
  // There a container without the word has no user namespace.
  const kept: Record<string, string> = { unprivileged: '0' }
  for (const [name, text] of Object.entries(options)) {
    if (/^(unused\d+|digest|parent|lock|snaptime)$/.test(name)) continue
    if (isOption(name)) kept[name] = text
    else warn(`${name} is left out: this release has no such option`)
  }
  for (let errors = errorsIn(kept); Object.keys(errors).length > 0; errors = errorsIn(kept)) {
    for (const [name, why] of Object.entries(errors)) {
      if (kept[name] === undefined) throw new Error(`option ${name} is wrong and not there: ${why}`)
      delete kept[name]
      warn(`${name} is left out: ${why}`)
    }
  }
  return kept
}

/** What breaks a rule; a text that is none of its form throws what it breaks. */
function errorsIn(options: Options): Readonly<Record<string, string>> {
  try {
    return optionErrors(options)
  } catch (fault) {
    if (isFault(fault, 'invalid') && fault.fields) return fault.fields
    throw fault
  }
}
