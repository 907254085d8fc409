/**
 * Volumes and their names: what stands behind the colon in `local:100/vm-100-disk-0.qcow2`.
 *
 * A name is parsed into a value before anything is done with it, and only values become paths. Every
 * part of a value is made of letters, digits and `_ . + ~ @ = -`, begins with no dot and holds no slash, so
 * no name can lead out of its folder, and files that begin with a dot (still being written) are no volumes.
 * For every text either `parseVolumeName` throws or `printVolumeName` returns that same text.
 */
import { Fault, invalid } from '#base/fault.ts'
import { asVmid, asVolumeId, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'

/** What a storage may hold, as PVE calls it. */
export const contentTypes = ['images', 'rootdir', 'iso', 'vztmpl', 'snippets', 'import', 'backup'] as const
export type ContentType = (typeof contentTypes)[number]
/** Content that is one plain file, put there whole and never changed. */
export type FileContent = 'iso' | 'vztmpl' | 'snippets' | 'import'

export const imageFormats = ['raw', 'qcow2'] as const
export type ImageFormat = (typeof imageFormats)[number]

/** The disk of a template, which linked clones are based on. */
export interface ParentName {
  readonly vmid: Vmid
  readonly base: string
  readonly format: ImageFormat
}
/**
 * A guest's disk: `100/vm-100-disk-0.qcow2`. `base` is the file's name without folder and ending.
 *
 * A linked clone says in its name what it is based on: `100/base-100-disk-0.raw/101/vm-101-disk-0.qcow2`. Names
 * are kept where no guest can write, so this, and not the image's own header, decides what may be read
 * through it.
 */
export interface ImageName extends ParentName {
  readonly kind: 'image'
  readonly parent?: ParentName
}
/** The files of a template. */
export interface TreeParent {
  readonly vmid: Vmid
  readonly base: string
}
/**
 * A container's files, in a folder of their own: `100/subvol-100-disk-0.subvol`. One that refers to the files of a
 * template says so, as disks do: `100/basevol-100-disk-0.subvol/101/subvol-101-disk-0.subvol`.
 */
export interface TreeName extends TreeParent {
  readonly kind: 'tree'
  /** `subvol-100-disk-0` */
  readonly base: string
  readonly parent?: TreeParent
}
/** A file: `iso/debian.iso`, or an archive made by `vzdump` elsewhere: `backup/vzdump-qemu-100-….vma.zst`. */
export interface FileName {
  readonly kind: 'file'
  readonly content: FileContent | 'backup'
  readonly file: string
}
/** A disk inside an archive to import: `import/appliance.ova/disk1.vmdk`, the member's name made plain. */
export interface MemberName {
  readonly kind: 'member'
  /** `appliance.ova` */
  readonly file: string
  readonly member: string
}
/** A restore point in the storage's datastore: `backup/vm/100/2026-11-20T10:00:00Z`. */
export interface RestorePointName {
  readonly kind: 'restore-point'
  readonly vmid: Vmid
  /** `vm/100/2026-11-20T10:00:00Z` */
  readonly id: string
}
export type VolumeName = ImageName | TreeName | FileName | MemberName | RestorePointName
/** What is a thing of its own on the storage. */
export type StoredName = ImageName | TreeName | FileName

/** One thing in a storage. */
export interface VolumeInfo {
  readonly volid: VolumeId
  readonly content: ContentType
  readonly format: string
  readonly sizeBytes: number
  /** What it takes on the storage; less than its size where holes are not stored. */
  readonly usedBytes?: number
  readonly vmid?: Vmid
  /** Seconds since 1970. */
  readonly ctime?: number
  readonly parent?: string
  readonly notes?: string
  readonly protected?: boolean
}

const imagePattern = /^([1-9]\d{2,8})\/((?:vm|base)-([1-9]\d{2,8})-[A-Za-z0-9][A-Za-z0-9_.+~-]{0,99})\.(raw|qcow2)$/
const treePattern = /^([1-9]\d{2,8})\/((?:subvol|basevol)-([1-9]\d{2,8})-[A-Za-z0-9][A-Za-z0-9_.+~-]{0,99})\.subvol$/
const linkedPattern = /^([^/]+\/[^/]+)\/([^/]+\/[^/]+)$/
const restorePointPattern = /^((?:vm|ct)\/([1-9]\d{2,8})\/\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z)$/
const memberPattern = /^import\/([^/]+\.ova)\/([^/]+\.(?:vmdk|qcow2|raw|vhd))$/i
const filePattern = /^[A-Za-z0-9_][A-Za-z0-9_.+~@=-]{0,254}$/

/** Endings each content accepts, as PVE does. */
const endings: Readonly<Record<FileContent | 'backup', { readonly pattern: RegExp; readonly says: string }>> = {
  iso: { pattern: /\.(iso|img)$/i, says: '.iso or .img' },
  vztmpl: { pattern: /\.tar(\.(gz|xz|zst|bz2))?$/i, says: '.tar, .tar.gz, .tar.xz, .tar.zst or .tar.bz2' },
  import: { pattern: /\.(ova|ovf|qcow2|raw|vmdk|vhd)$/i, says: '.ova, .ovf, .qcow2, .raw, .vmdk or .vhd' },
  snippets: { pattern: /^/, says: 'any' },
  backup: {
    pattern: /^vzdump-(?:qemu|lxc)-[1-9]\d{2,8}-.+\.(?:tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)$/,
    says: '.tgz, .tar or .vma, the latter two also followed by .gz, .lzo, .zst or .bz2',
  },
}

export function isFileContent(content: string): content is FileContent {
  return content === 'iso' || content === 'vztmpl' || content === 'snippets' || content === 'import'
}

/** @throws Fault `invalid` when the text names no volume. */
export function parseVolumeName(text: string): VolumeName {
  const name = imageNameIn(text) ?? treeNameIn(text) ?? fileNameIn(text)
  if (!name) throw invalid({ volume: `unable to parse volume name '${text.slice(0, 300)}'` })
  return name
}

export function printVolumeName(name: VolumeName): string {
  switch (name.kind) {
    case 'image':
      return name.parent ? `${printImage(name.parent)}/${printImage(name)}` : printImage(name)
    case 'tree':
      return name.parent ? `${printTree(name.parent)}/${printTree(name)}` : printTree(name)
    case 'file':
      return `${name.content}/${name.file}`
    case 'member':
      return `import/${name.file}/${name.member}`
    case 'restore-point':
      return `backup/${name.id}`
    default:
      return name satisfies never
  }
}

function printImage({ vmid, base, format }: ParentName): string {
  return `${vmid}/${base}.${format}`
}

function printTree({ vmid, base }: TreeParent): string {
  return `${vmid}/${base}.subvol`
}

/** `base-100-disk-0.raw`, `basevol-100-disk-0.subvol` of a template: never written again, and not by its guest. */
export function isBase({ base }: TreeParent): boolean {
  return /^base(?:vol)?-/.test(base)
}

/** True when both name the same tree, whether or not they say what it is based on. */
export function isSameTree(one: TreeParent, other: TreeParent): boolean {
  return printTree(one) === printTree(other)
}

/** True when both name the same image, whether or not they say what it is based on. */
export function isSameImage(one: ParentName, other: ParentName): boolean {
  return printImage(one) === printImage(other)
}

function imageNameIn(text: string): ImageName | undefined {
  const [, first = '', last = ''] = linkedPattern.exec(text) ?? []
  if (first === '') return plainImageIn(text)
  const [parent, name] = [parentIn(first), plainImageIn(last)]
  // Only a format that can refer to another image, and only to one that is never written again.
  if (!parent || name?.format !== 'qcow2' || isSameImage(name, parent)) return undefined
  return { ...name, parent }
}

/** `100/base-100-disk-0.raw`, if it is such a name. */
export function parentIn(text: string): ParentName | undefined {
  const found = plainImageIn(text)
  if (!found || !isBase(found)) return undefined
  const { vmid, base, format } = found
  return { vmid, base, format }
}

function plainImageIn(text: string): ImageName | undefined {
  const [, folder, base, owner, format] = imagePattern.exec(text) ?? []
  // `100/vm-101-disk-0.raw` would belong to one guest and lie with the disks of another.
  if (base === undefined || folder !== owner) return undefined
  return { kind: 'image', vmid: asVmid(owner), base, format: format === 'raw' ? 'raw' : 'qcow2' }
}

function treeNameIn(text: string): TreeName | undefined {
  const [, first = '', last = ''] = linkedPattern.exec(text) ?? []
  if (first === '') return plainTreeIn(text)
  const [parent, name] = [treeParentIn(first), plainTreeIn(last)]
  return !parent || !name || isSameTree(name, parent) ? undefined : { ...name, parent }
}

/** `100/basevol-100-disk-0.subvol`, if it is such a name. */
export function treeParentIn(text: string): TreeParent | undefined {
  const found = plainTreeIn(text)
  return found && isBase(found) ? { vmid: found.vmid, base: found.base } : undefined
}

function plainTreeIn(text: string): TreeName | undefined {
  const [, folder, base, owner] = treePattern.exec(text) ?? []
  return base === undefined || folder !== owner ? undefined : { kind: 'tree', vmid: asVmid(owner), base }
}

function fileNameIn(text: string): FileName | MemberName | RestorePointName | undefined {
  const [, archive = '', member = ''] = memberPattern.exec(text) ?? []
  if (member !== '') {
    const isName = complaintAboutFile('import', archive) === undefined && filePattern.test(member)
    return isName ? { kind: 'member', file: archive, member } : undefined
  }
  const slash = text.indexOf('/')
  const [folder, file] = [text.slice(0, slash), text.slice(slash + 1)]
  if (folder === 'backup') {
    const [, id, vmid] = restorePointPattern.exec(file) ?? []
    if (id !== undefined) return { kind: 'restore-point', vmid: asVmid(vmid), id }
  }
  if (folder !== 'backup' && !isFileContent(folder)) return undefined
  return complaintAboutFile(folder, file) === undefined ? { kind: 'file', content: folder, file } : undefined
}

/** Says why a file cannot have that name as that content, or nothing. */
export function complaintAboutFile(content: FileContent | 'backup', file: string): string | undefined {
  if (!filePattern.test(file)) return `'${file.slice(0, 255)}' is no file name of letters, digits and _ . + ~ @ = -`
  const { pattern, says } = endings[content]
  return pattern.test(file) ? undefined : `wrong file extension: content '${content}' needs ${says}`
}

/** What remains of a client's file name: no folders, and `_` for what a volume's name cannot hold. */
export function plainFileName(text: string): string {
  const last = text.split(/[/\\]/).at(-1) ?? ''
  return last
    .trim()
    .replaceAll(/[^A-Za-z0-9_.+~@=-]/g, '_')
    .replace(/^[.+~@=-]+/, '_')
}

export function contentOf(name: VolumeName): ContentType {
  switch (name.kind) {
    case 'image':
      return 'images'
    case 'tree':
      return 'rootdir'
    case 'file':
      return name.content
    case 'member':
      return 'import'
    case 'restore-point':
      return 'backup'
    default:
      return name satisfies never
  }
}

/** `qcow2`, `iso`, `tzst`, …: PVE's word for the form of a volume. */
export function formatOf(name: VolumeName): string {
  if (name.kind === 'image') return name.format
  if (name.kind === 'tree') return 'subvol'
  if (name.kind === 'restore-point') return name.id.startsWith('ct/') ? 'hako-ct' : 'hako-vm'
  if (name.kind === 'member') return `ova+${name.member.split('.').at(-1)?.toLowerCase()}`
  const ending = name.file.split('.').at(-1)?.toLowerCase() ?? ''
  switch (name.content) {
    case 'iso':
      return 'iso'
    case 'snippets':
      return 'snippet'
    case 'vztmpl':
      return ending === 'tar' ? 'tar' : `t${ending}`
    case 'import':
      return ending
    case 'backup':
      return /\.(tgz|(?:tar|vma)(?:\.\w+)?)$/.exec(name.file)?.[1] ?? ending
    default:
      return name.content satisfies never
  }
}

/** The guest a volume belongs to, if any. */
export function ownerOf(name: VolumeName): Vmid | undefined {
  if (name.kind === 'member') return undefined
  if (name.kind !== 'file') return name.vmid
  const digits = name.content === 'backup' ? /^vzdump-(?:qemu|lxc)-(\d+)-/.exec(name.file)?.[1] : undefined
  return digits === undefined ? undefined : asVmid(digits)
}

/** The kind of guest an archive that was made elsewhere says it is of; nothing for all else. */
export function archiveKind(volid: VolumeId): 'qemu' | 'lxc' | undefined {
  const [, kind] = /^[^:]+:backup\/vzdump-(qemu|lxc)-/.exec(volid) ?? []
  return kind === 'qemu' || kind === 'lxc' ? kind : undefined
}

/** When an archive says it was made, in seconds since 1970: `vzdump-qemu-100-2026_01_31-12_00_00.vma.zst`, in local time. */
export function madeAt({ content, file }: FileName): number | undefined {
  const time = content === 'backup' ? /^vzdump-\w+-\d+-(\d{4})_(\d\d)_(\d\d)-(\d\d)_(\d\d)_(\d\d)\./.exec(file) : null
  if (!time) return undefined
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = time.slice(1).map(Number)
  const date = new Date(year, month - 1, day, hour, minute, second)
  // The 31st of a month of 30 days is no day, and neither is hour 25.
  const isReal = date.getMonth() === month - 1 && date.getDate() === day && minute < 60 && second < 60 && hour < 24
  return isReal && date.getTime() >= 0 ? Math.floor(date.getTime() / 1000) : undefined
}

/** The refusal of what is a part of something else. */
export function notOnItsOwn(volid: VolumeId, { kind }: MemberName | RestorePointName): Fault {
  const where = kind === 'member' ? 'lies inside an archive' : "is a restore point and lives in the storage's datastore"
  return new Fault('invalid', `volume '${volid}' ${where}`)
}

export function volumeId(storage: string, name: VolumeName): VolumeId {
  return asVolumeId(`${storage}:${printVolumeName(name)}`)
}

/** Takes `local:iso/a.iso` apart. @throws Fault `invalid` */
export function parseVolumeId(volid: VolumeId): { storage: string; name: VolumeName } {
  const { storage, name } = splitVolumeId(volid)
  return { storage, name: parseVolumeName(name) }
}

/**
 * The volume a URL names below `/storage/{storage}/content/`: `storage:name` or just `name`.
 * @throws Fault `invalid` when the id names another storage or no volume
 */
export function volumeAt(storage: string, text: string): VolumeId {
  const prefix = /^([a-zA-Z][a-zA-Z0-9._-]*):/.exec(text)?.[1]
  if (prefix !== undefined && prefix !== storage) {
    throw invalid({ volume: `storage ID mismatch (${prefix} != ${storage})` })
  }
  return volumeId(storage, parseVolumeName(prefix === undefined ? text : text.slice(prefix.length + 1)))
}

/**
 * The name a caller wishes for a new image, with or without folder and ending:
 * `vm-100-disk-5`, `vm-100-cloudinit.qcow2`, `100/vm-100-disk-5.raw`.
 */
export function wishedImageName(vmid: Vmid, wish: string, format: ImageFormat): ImageName {
  const file = wish.startsWith(`${vmid}/`) ? wish.slice(`${vmid}/`.length) : wish
  const name = imageNameIn(`${vmid}/${/\.(raw|qcow2)$/.test(file) ? file : `${file}.${format}`}`)
  if (!name) throw invalid({ filename: `illegal name '${wish.slice(0, 200)}' - should be 'vm-${vmid}-*'` })
  if (name.format !== format) throw invalid({ format: `'${wish}' does not end in .${format}` })
  return name
}

/** The first `vm-<vmid>-disk-<n>` no image has, in whatever format. */
export function nextImageName(vmid: Vmid, format: ImageFormat, taken: readonly ImageName[]): ImageName {
  const bases = new Set(taken.map(({ base }) => base))
  let number = 0
  while (bases.has(`vm-${vmid}-disk-${number}`) || bases.has(`base-${vmid}-disk-${number}`)) number += 1
  return { kind: 'image', vmid, base: `vm-${vmid}-disk-${number}`, format }
}

/** The first `subvol-<vmid>-disk-<n>` no tree has. */
export function nextTreeName(vmid: Vmid, taken: readonly TreeName[]): TreeName {
  const bases = new Set(taken.map(({ base }) => base))
  let number = 0
  while (bases.has(`subvol-${vmid}-disk-${number}`) || bases.has(`basevol-${vmid}-disk-${number}`)) number += 1
  return { kind: 'tree', vmid, base: `subvol-${vmid}-disk-${number}` }
}
