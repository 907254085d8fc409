/**
 * Folders of the node in the guest (virtiofs), by the name of a directory mapping, which is also the tag the guest
 * mounts them by.
 *
 * A program of its own serves each folder and reads and writes the guest's memory for that, so a guest with a folder
 * has its memory in a file both share.
 */
import type { Errors } from '#base/schema/check.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const folderCount = 10
/** The standard has no room for a longer tag. */
const tagLength = 36

export const folderFormat: PropertyFormat = {
  dirid: {
    schema: string({ description: 'Directory mapping.', format: 'pve-configid', maxLength: 64 }),
    isDefaultKey: true,
  },
  cache: {
    schema: optional(
      enumOf(['auto', 'always', 'metadata', 'never'], { description: 'What the guest may keep.', default: 'auto' }),
    ),
  },
  'direct-io': {
    schema: optional(boolean({ description: 'Honour a program’s wish to bypass caches.', default: false })),
  },
  'expose-acl': { schema: optional(boolean({ description: 'Show access lists.', default: false })) },
  'expose-xattr': { schema: optional(boolean({ description: 'Show extended attributes.', default: false })) },
}

export interface SharedFolder {
  /** `virtiofs0` */
  readonly name: string
  readonly mapping: string
  readonly cache: string
  readonly isDirect: boolean
  readonly hasAcls: boolean
  readonly hasAttributes: boolean
}

export function foldersOf(options: Options): SharedFolder[] {
  return Array.from({ length: folderCount }, (_, index) => `virtiofs${index}`).flatMap((name) => {
    const text = options[name]
    return text === undefined ? [] : [folderOf(name, text)]
  })
}

export function folderOf(name: string, text: string): SharedFolder {
  const values = readPropertyString(folderFormat, text, name)
  const hasAcls = values['expose-acl'] === true
  return {
    name,
    mapping: String(values.dirid),
    cache: String(values.cache ?? 'auto'),
    isDirect: values['direct-io'] === true,
    hasAcls,
    // Access lists are kept in attributes.
    hasAttributes: hasAcls || values['expose-xattr'] === true,
  }
}

export function hasFolders(options: Options): boolean {
  return foldersOf(options).length > 0
}

export function folderErrors(options: Options): Errors {
  const errors: Errors = {}
  const seen = new Map<string, string>()
  for (const { name, mapping, cache } of foldersOf(options)) {
    const other = seen.get(mapping)
    if (other !== undefined) errors[name] = `directory '${mapping}' is ${other} already`
    else if (Buffer.byteLength(mapping) > tagLength) {
      errors[name] = `the guest mounts it by its name, which may have ${tagLength} characters: '${mapping}' has more`
    } else if (cache === 'metadata') {
      errors[name] = "cache 'metadata' is not supported by this release: there are auto, always and never"
    }
    seen.set(mapping, name)
  }
  return errors
}

export const folderSocket = (runDir: string, name: string) => `${runDir}/${name}.sock`
export const folderLog = (name: string) => `${name}.log`
/** The program keeps others from its socket by a file of that name. */
export const folderLock = (socket: string) => `/run/virtiofsd/${socket.replaceAll('/', '.')}.pid`

/** The command line of the program that serves the folder; it ends when QEMU lets go of it. */
export function folderCommand(program: string, folder: SharedFolder, source: string, socket: string): string[] {
  const words = [
    `source=${source}`,
    'sandbox=namespace',
    // The guest makes no device files: they would be devices of the node.
    'modcaps=-mknod',
    'announce_submounts',
    `cache=${folder.cache === 'never' ? 'none' : folder.cache}`,
    ...(folder.isDirect ? ['allow_direct_io'] : []),
    ...(folder.hasAttributes ? ['xattr'] : []),
    ...(folder.hasAcls ? ['posix_acl'] : []),
  ]
  return [program, `--socket-path=${socket}`, ...words.flatMap((word) => ['-o', word])]
}

export function foldersToArgv(options: Options, machine: MachineKind, runDir: string): string[] {
  return foldersOf(options).flatMap(({ name, mapping }) => [
    '-chardev',
    keyed('socket', { id: name, path: folderSocket(runDir, name) }),
    ...device('vhost-user-fs-pci', { id: name, ...pciPlace(machine, name), chardev: name, tag: mapping }),
  ])
}
