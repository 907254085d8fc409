/** Guests as the API lists them: which of them a caller may see, and what is said of each. */
import { array, boolean, enumOf, integer, number, object, optional, record, string } from '#base/schema/schema.ts'
import type { Static } from '#base/schema/schema.ts'
import { vmid } from '#base/schema/standard.ts'
import type { GuestKind } from '#guests/kind.ts'
import type { GuestStatus } from '#guests/guest.ts'
import { agentOf } from '#guests/qemu/agent.ts'
import { hasSpice } from '#guests/qemu/vga.ts'
import type { GuestService } from '#guests/service.ts'
import type { May } from './volume-access.ts'

const use = {
  vmid,
  name: string({ description: 'Name.' }),
  status: enumOf(['running', 'stopped'], { description: 'Whether its process runs.' }),
  cpus: number({ description: 'Processors.' }),
  cpu: number({ description: 'Share of them in use, 0 to 1.' }),
  maxmem: integer({ description: 'Memory in bytes.' }),
  mem: integer({ description: 'Memory in use, in bytes.' }),
  memhost: optional(integer({ description: 'Memory the node spends on it, in bytes.' })),
  maxdisk: integer({ description: 'Size of its first disk in bytes.' }),
  disk: integer({ description: 'Used on the disk of a container; 0 of a virtual machine, where nobody knows.' }),
  uptime: integer({ description: 'Seconds since its start.' }),
  netin: integer({ description: 'Bytes received.' }),
  netout: integer({ description: 'Bytes sent.' }),
  diskread: integer({ description: 'Bytes read from disks.' }),
  diskwrite: integer({ description: 'Bytes written to disks.' }),
  pid: optional(integer({ description: 'Process of its QEMU.' })),
  tags: optional(string({ description: 'Tags, separated by semicolons.' })),
  template: optional(boolean({ description: 'It is a template.' })),
  lock: optional(string({ description: 'What keeps it from being changed.' })),
  serial: optional(boolean({ description: 'It has a serial console.' })),
}

const containerUse = {
  ...use,
  type: enumOf(['lxc'], { description: 'Kind of guest.' }),
  maxswap: integer({ description: 'Swap space in bytes.' }),
  swap: integer({ description: 'Swap space in use, in bytes.' }),
}

export const guestItem = object(use)
export const containerItem = object(containerUse)
export const containerItems = array(containerItem)

export const containerStatus = object({ ...containerUse, ha: record({ description: 'High availability.' }) })

export const guestItems = array(guestItem)

export const currentStatus = object({
  ...use,
  qmpstatus: string({ description: 'State as QEMU says: running, paused, …' }),
  ha: record({ description: 'High availability.' }),
  agent: optional(boolean({ description: 'A guest agent is configured.' })),
  spice: optional(boolean({ description: 'Its display is one for SPICE.' })),
  'running-machine': optional(string({ description: 'Machine type of the running QEMU.' })),
  'running-qemu': optional(string({ description: 'Version of the running QEMU.' })),
  'qemu-outdated': optional(boolean({ description: 'An update has replaced that QEMU since: renew the guest.' })),
})

/** Guests of this node the caller may look at, of one kind or of all. */
export async function visibleGuests(
  guests: Pick<GuestService, 'list'>,
  may: May,
  kind?: GuestKind,
): Promise<GuestStatus[]> {
  const all = (await guests.list()).filter((one) => kind === undefined || one.kind === kind)
  const asked = all.map(({ vmid: id }) => may(`/vms/${id}`, 'VM.Audit'))
  // Root, and nobody, get one and the same promise for everything.
  const [same, ...others] = new Set(asked)
  if (others.length === 0) return (await same) === true ? all : []
  const allowed = await Promise.all(asked)
  return all.filter((_, at) => allowed[at])
}

export type GuestItem = Readonly<Static<typeof guestItem>>

/** Of guests that lie still: a list of many is mostly these, and is asked for again and again. */
const itemsOfStill = new WeakMap<GuestStatus, GuestItem>()

export function itemOf(guest: GuestStatus): GuestItem {
  const known = itemsOfStill.get(guest)
  if (known) return known
  const item = makeItem(guest)
  if (Object.isFrozen(guest)) itemsOfStill.set(guest, Object.freeze(item))
  return item
}

function makeItem(guest: GuestStatus): Static<typeof guestItem> {
  const { state, options, tags, lock, isTemplate } = guest
  const running = state.state === 'running' ? state : undefined
  return {
    vmid: guest.vmid,
    name: guest.name,
    status: state.state,
    cpus: guest.processors,
    cpu: running?.cpu ?? 0,
    maxmem: guest.maxMemoryBytes,
    mem: running?.memoryBytes ?? 0,
    // A folder has no size of its own; it has that of the file system it lies on.
    maxdisk: guest.maxDiskBytes || (running?.diskSizeBytes ?? 0),
    disk: running?.diskBytes ?? 0,
    uptime: running?.uptimeSeconds ?? 0,
    netin: running?.netInBytes ?? 0,
    netout: running?.netOutBytes ?? 0,
    diskread: running?.diskReadBytes ?? 0,
    diskwrite: running?.diskWriteBytes ?? 0,
    ...(running ? { pid: running.pid, memhost: running.hostMemoryBytes } : {}),
    ...(tags === undefined ? {} : { tags }),
    ...(lock === undefined ? {} : { lock }),
    ...(isTemplate ? { template: true } : {}),
    ...(options.serial0 === undefined ? {} : { serial: true }),
  }
}

export function containerItemOf(guest: GuestStatus): Static<typeof containerItem> {
  const swap = guest.state.state === 'running' ? guest.state.swapBytes : 0
  return { ...itemOf(guest), type: 'lxc', maxswap: guest.maxSwapBytes, swap }
}

export function containerStatusOf(guest: GuestStatus): Static<typeof containerStatus> {
  return { ...containerItemOf(guest), ha: { managed: 0 } }
}

export function currentStatusOf(guest: GuestStatus): Static<typeof currentStatus> {
  const { state } = guest
  return {
    ...itemOf(guest),
    ha: { managed: 0 },
    ...(agentOf(guest.options).isEnabled ? { agent: true } : {}),
    ...(hasSpice(guest.options) ? { spice: true } : {}),
    ...(state.state === 'running'
      ? {
          qmpstatus: state.qmpStatus,
          'running-machine': state.machine,
          'running-qemu': state.qemuVersion,
          ...(state.isOutdated ? { 'qemu-outdated': true } : {}),
        }
      : { qmpstatus: 'stopped' }),
  }
}
