/** Which rights the options of a request take, beyond that of the call itself. */
import { Fault, invalid, isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { snippetsOf } from '#guests/cloud-init/options.ts'
import type { Options } from '#guests/config.ts'
import { customModelOf } from '#guests/qemu/cpu.ts'
import { driveNameParts, driveOf, wishOf } from '#guests/qemu/drive.ts'
import { mappingOf } from '#guests/qemu/mapped.ts'
import { nicOf } from '#guests/qemu/nic.ts'
import { isRootOnly, privilegeFor } from '#guests/qemu/options.ts'
import { all, any, check, type Permission, rootOnly } from '#rest/endpoint.ts'
import { toRead } from '#views/volume-access.ts'
import type { Call } from '../../call.ts'

export const optionRightsSay =
  'by option VM.Config.* on the guest; for drives and vmstatestorage Datastore.AllocateSpace on their storage or the right to read their volume; for cicustom the right to read its snippets; SDN.Use on the bridge; Mapping.Use on a mapping or custom processor model; args, hookscript, lock, skiplock, host paths and host devices are for root@pam alone'

/** Rights for setting these options of the guest. */
export function rightsToSet(vmid: number, options: Options): Permission[] {
  return Object.entries(options).flatMap(([name, value]) => [
    ...rightsOfOption(vmid, name, value),
    ...(driveNameParts(name) ? rightsOfDrive(name, value) : []),
    ...(/^net\d+$/.test(name) ? rightsOfCard(name, value) : []),
    ...rightsOfName(name, value),
    ...(name === 'vmstatestorage' ? [check('Datastore.AllocateSpace', `/storage/${value}`)] : []),
    ...(name === 'cicustom' ? Object.values(snippetsOf(options)).map(toReadVolume) : []),
  ])
}

/** Rights for deleting or reverting options, whose values the caller does not name. */
export function rightsToDelete(vmid: number, names: readonly string[]): Permission[] {
  return names.flatMap((name) => rightsOfOption(vmid, name, undefined))
}

/** What only root may set is refused by `requireRoot`, in words of its own. */
function rightsOfOption(vmid: number, name: string, value: string | undefined): Permission[] {
  const privilege = privilegeFor(name, value)
  return privilege === undefined ? [] : [check(privilege, `/vms/${vmid}`)]
}

function rightsOfDrive(name: string, value: string): Permission[] {
  const wish = wishOf(driveOf(name, value))
  switch (wish.kind) {
    case 'empty':
    case 'host-cdrom':
      return []
    case 'path':
      return [rootOnly]
    case 'volume':
      return [toReadVolumeOf(name, wish.volid)]
    case 'cloudinit':
    case 'allocate':
      return [check('Datastore.AllocateSpace', `/storage/${wish.storage}`)]
    case 'import':
      return [
        check('Datastore.AllocateSpace', `/storage/${wish.storage}`),
        wish.source.startsWith('/') ? rootOnly : toReadVolume(wish.source),
      ]
    default:
      return wish satisfies never
  }
}

/** Without a storage the disks go where they were, which is known only once the backup is open. */
export function rightsToRestore(params: { archive?: string | undefined; storage?: string | undefined }): Permission[] {
  if (params.archive === undefined) return []
  const place = params.storage === undefined ? '/storage' : `/storage/${params.storage}`
  // A path is a file of the node's, which may be anything.
  const source = params.archive.startsWith('/') ? rootOnly : toReadVolume(params.archive)
  return [source, check('Datastore.AllocateSpace', place)]
}

/** The right to read a volume of a storage. */
export function toReadVolume(volume: string): Permission {
  const alternatives = toRead(asVolumeId(volume))
  return any(...alternatives.map((parts) => all(...parts.map(({ path, privilege }) => check(privilege, path)))))
}

/** @throws Fault `invalid` naming the drive when its text is no volume */
function toReadVolumeOf(drive: string, volume: string): Permission {
  try {
    return toReadVolume(volume)
  } catch (fault) {
    if (!isFault(fault, 'invalid') || fault.fields?.volume === undefined) throw fault
    throw invalid(
      { [drive]: fault.fields.volume },
      {
        cause: fault,
        remedy: `A new disk is <storage>:<GiB>, as in 'local:8'; a volume that is there is named by its id.`,
      },
    )
  }
}

function rightsOfCard(name: string, value: string): Permission[] {
  const { bridge } = nicOf(name, value)
  return bridge === undefined ? [] : [check('SDN.Use', `/sdn/zones/localnetwork/${bridge}`)]
}

/** What the owner of the cluster gave a name to is used by whoever may use the name. */
function rightsOfName(name: string, value: string): Permission[] {
  return mappingsIn({ [name]: value }).map((path) => check('Mapping.Use', path))
}

/** Paths of the mappings and custom processor models these options use. */
export function mappingsIn(options: Options): string[] {
  return Object.entries(options).flatMap(([name, value]) => {
    const model = name === 'cpu' ? customModelOf({ cpu: value }) : undefined
    if (model !== undefined) return [`/mapping/cpu/${model}`]
    const used = mappingOf(name, value)
    return used === undefined ? [] : [`/mapping/${used.kind}/${used.mapping}`]
  })
}

/** @throws Fault in the words clients know for what root@pam alone may do; never for root in person */
export function requireRoot(
  { who, services }: Call,
  params: { skiplock?: boolean | undefined },
  options: Options,
): void {
  if (who.token === undefined && services.access.isRoot(who)) return
  if (params.skiplock === true) throw invalid({ skiplock: 'Only root may use this option.' })
  const name = Object.keys(options).find((option) => isRootOnly(option, options[option]))
  if (name !== undefined) throw new Fault('failed', `only root can set '${name}' config`)
}
