/**
 * From another platform's configuration to one of ours, with the restored volumes in it. Everything that is left
 * out is told, with its reason; nothing of a value is, for values may be secrets.
 */
import { formatSize } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { splitVolumeId, type VolumeId } from '#base/ids.ts'
import { driveNameParts, driveOf, isCdrom, isCloudInit, wishOf } from '#guests/qemu/drive.ts'
import { isOption, isServerOption, optionErrors } from '#guests/qemu/options.ts'
import type { ForeignConf } from './foreign-conf.ts'

export type RestoredDrive = {
  readonly drive: string
  readonly volid: VolumeId
  readonly sizeBytes: number
}

export interface Telling {
  /** What was to be expected. */
  readonly log: (line: string) => void
  /** What the guest had and will not have. */
  readonly warn: (line: string) => void
}

export interface TranslateContext extends Telling {
  readonly drives: readonly RestoredDrive[]
  /** Whether a disc of this volume may be put into the drive. */
  readonly isDisc: (volid: VolumeId) => Promise<boolean>
}

/** Of the other platform's own book-keeping. */
const bookkeeping = /^(meta|digest|parent|snaptime|snapstate|vmstate|runningmachine|runningcpu|running-nets-host-mtu)$/
const warningsMaximum = 100

export async function translateForeign(conf: ForeignConf, context: TranslateContext): Promise<Record<string, string>> {
  const telling = bounded(context)
  for (const line of conf.strange) telling.warn(`a line of the configuration is left out: '${line}'`)
  const { snapshots } = conf
  if (snapshots.length > 0) telling.log(`snapshots are not in the archive and are left out: ${snapshots.join(', ')}`)
  const options: Record<string, string> = {}
  for (const [name, text] of Object.entries(conf.options)) {
    const kept = await keptText(name, text, { ...context, ...telling })
    if (kept !== undefined) options[name] = kept
  }
  withoutErrors(options, context.drives, telling)
  let unused = 0
  for (const { drive, volid } of context.drives) {
    if (options[drive] !== undefined) continue
    telling.warn(`disk ${drive} has no place in the guest: it is there as unused${unused}`)
    options[`unused${unused++}`] = volid
  }
  return options
}

async function keptText(name: string, text: string, context: TranslateContext): Promise<string | undefined> {
  const { drives, log, warn } = context
  const restored = drives.find(({ drive }) => drive === name)
  if (/^unused\d+$/.test(name)) log(`${name} is left out: unused disks are not in the archive`)
  else if (bookkeeping.test(name) || isServerOption(name)) {
    if (name === 'template') warn('the guest was a template and is an ordinary guest now')
  } else if (!isOption(name)) {
    if (!restored) warn(`${name} is left out: this release has no such option`)
  } else if (!holdsVolume(name)) return text
  else if (isCdrom(text)) return discOf(name, text, context)
  else if (restored) return diskText(restored, text)
  else log(`${name} is left out: the archive does not hold it`)
  return undefined
}

/** What names a volume names one of another platform. */
function holdsVolume(name: string): boolean {
  return driveNameParts(name) !== undefined || /^(efidisk|tpmstate)\d+$/.test(name)
}

/** A disc that is not here leaves an empty drive. */
async function discOf(name: string, text: string, { isDisc, warn, drives }: TranslateContext): Promise<string> {
  const [place] = drives
  // Made anew for the guest, beside its disks: where it was may be no storage here.
  if (isCloudInit(text) && place) return `${splitVolumeId(place.volid).storage}:cloudinit,media=cdrom`
  try {
    const drive = driveOf(name, text)
    const wish = wishOf(drive)
    if (wish.kind === 'empty') return text
    if (wish.kind === 'volume' && (await isDisc(wish.volid))) return text
  } catch (fault) {
    if (!isFault(fault)) throw fault
  }
  warn(`${name}: the disc in it is not here; the drive is empty`)
  return 'none,media=cdrom'
}

/** The drive's own settings with the new volume; whether they are for us is judged with all others. */
function diskText({ volid, sizeBytes }: RestoredDrive, text: string): string {
  const [first = '', ...rest] = text.split(',')
  const settings = first.includes('=') ? [first, ...rest] : rest
  const kept = settings.filter((part) => !/^(file|volume|size|format|import-from)=/.test(part))
  return [volid, ...kept, `size=${formatSize(sizeBytes)}`].join(',')
}

/** Takes out what breaks a rule, until nothing does; a disk keeps its place as long as a plain one may have it. */
function withoutErrors(
  options: Record<string, string>,
  drives: readonly RestoredDrive[],
  { warn }: Pick<Telling, 'warn'>,
): void {
  for (let errors = optionErrors(options); Object.keys(errors).length > 0; errors = optionErrors(options)) {
    for (const [name, why] of Object.entries(errors)) {
      const disk = drives.find(({ drive }) => drive === name)
      const plain = disk && `${disk.volid},size=${formatSize(disk.sizeBytes)}`
      const before = options[name]
      if (before === undefined) throw new Error(`option ${name} is wrong and not there: ${why}`)
      delete options[name]
      if (plain !== undefined && before !== plain) {
        warn(`${name}: its settings are left out: ${why}`)
        options[name] = plain
      } else warn(`${name} is left out: ${why}`)
    }
  }
}

/** An archive must not fill the log. */
function bounded({ log, warn }: Telling): Telling {
  let count = 0
  const counted = (say: (line: string) => void) => (line: string) => {
    count += 1
    if (count < warningsMaximum) say(line)
    else if (count === warningsMaximum) warn('more of the configuration is left out than is told here')
  }
  return { log: counted(log), warn: counted(warn) }
}
