/** Which rights the options of a request take, beyond that of the call itself. */
import { Fault, invalid } from '#base/fault.ts'
import type { Options } from '#guests/config.ts'
import { isMountName, mountOf, wishOf } from '#guests/lxc/mountpoint.ts'
import { nicOf } from '#guests/lxc/nic.ts'
import { isRootOnly, privilegeFor } from '#guests/lxc/options.ts'
import { check, type Permission, rootOnly } from '#rest/endpoint.ts'
import type { Call } from '../../call.ts'
import { toReadVolume } from '../qemu/rights.ts'

export const optionRightsSay =
  'by option VM.Config.* on the guest; for mounts Datastore.AllocateSpace on their storage or the right to read their volume; SDN.Use on the bridge; features but nesting, host paths, devices, hookscript, lock, skiplock and a container without a user namespace are for root@pam alone'

/** Rights for setting these options of the container. */
export function rightsToSet(vmid: number, options: Options): Permission[] {
  return Object.entries(options).flatMap(([name, value]) => [
    ...rightsOfOption(vmid, name),
    ...(isMountName(name) ? rightsOfMount(name, value) : []),
    ...(/^net\d+$/.test(name) ? rightsOfCard(name, value) : []),
  ])
}

/** Rights for deleting or reverting options, whose values the caller does not name. */
export function rightsToDelete(vmid: number, names: readonly string[]): Permission[] {
  return names.flatMap((name) => rightsOfOption(vmid, name))
}

/** What only root may set is refused by `requireRoot`, in words of its own. */
function rightsOfOption(vmid: number, name: string): Permission[] {
  const privilege = privilegeFor(name)
  return privilege === undefined ? [] : [check(privilege, `/vms/${vmid}`)]
}

function rightsOfMount(name: string, value: string): Permission[] {
  const mount = mountOf(name, value)
  const volume = String(mount.values.volume)
  // What is neither is refused with the options, in words of its own.
  if (!volume.startsWith('/') && !/^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]:[^\s:]+$/.test(volume)) return []
  const wish = wishOf(mount)
  switch (wish.kind) {
    case 'path':
      return [rootOnly]
    case 'volume':
      return [toReadVolume(wish.volid)]
    case 'allocate':
      return [check('Datastore.AllocateSpace', `/storage/${wish.storage}`)]
    default:
      return wish satisfies never
  }
}

function rightsOfCard(name: string, value: string): Permission[] {
  const { bridge } = nicOf(name, value)
  return bridge === undefined ? [] : [check('SDN.Use', `/sdn/zones/localnetwork/${bridge}`)]
}

/** @throws Fault in the words clients know for what root@pam alone may do; never for root in person */
export function requireRoot(
  { who, services }: Call,
  params: { readonly skiplock?: boolean | undefined; readonly unprivileged?: boolean | undefined },
  options: Options,
): void {
  if (who.token === undefined && services.access.isRoot(who)) return
  if (params.skiplock === true) throw invalid({ skiplock: 'Only root may use this option.' })
  if (params.unprivileged === false) {
    throw new Fault('denied', 'only root can make a container without a user namespace (unprivileged 0)')
  }
  const name = Object.keys(options).find((option) => isRootOnly(option, options[option]))
  if (name !== undefined) throw new Fault('failed', `only root can set '${name}' config`)
}
