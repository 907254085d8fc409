/**
 * Where each device sits on the guest's PCI buses: a fixed place per name.
 *
 * Invariants: adding or removing one device never moves another, because guests name network interfaces
 * and Windows binds drivers by place. Cards, disks and controllers can come and go while the guest runs:
 * they sit where the chipset lets them. The root bus of `pc` does; that of `q35` does not, so there all of
 * them are behind bridges. The bridges are always present, since a bridge cannot come later.
 * The tempting way, letting QEMU choose, numbers by order.
 */
import { device } from './argument.ts'
import type { MachineKind } from './machine.ts'

/** A bus by number: 0 is the root, 1 to 3 are bridges. */
interface Place {
  readonly bus: 0 | 1 | 2 | 3
  readonly slot: number
}

const single: Readonly<Record<string, Place>> = {
  vga: { bus: 0, slot: 0x2 },
  balloon0: { bus: 0, slot: 0x3 },
  watchdog: { bus: 0, slot: 0x4 },
  ahci0: { bus: 0, slot: 0x7 },
  'virtio-serial': { bus: 0, slot: 0x8 },
  rng0: { bus: 0, slot: 0x9 },
  uhci: { bus: 0, slot: 0x10 },
  ivshmem: { bus: 0, slot: 0x18 },
  xhci: { bus: 0, slot: 0x19 },
  audio0: { bus: 0, slot: 0x1b },
}

interface Family {
  /** How many of `pc` are on its root bus, and from which slot. */
  readonly onRoot: number
  readonly rootSlot: number
  readonly bridge: 1 | 2 | 3
  /** On the bridge; 1 unless others are there too. */
  readonly firstSlot?: number
}
const families: Readonly<Record<string, Family>> = {
  net: { onRoot: 6, rootSlot: 0x12, bridge: 1 },
  virtiofs: { onRoot: 0, rootSlot: 0, bridge: 2, firstSlot: 17 },
  virtio: { onRoot: 6, rootSlot: 0xa, bridge: 2 },
  scsihw: { onRoot: 2, rootSlot: 0x5, bridge: 3 },
}
/** The first slot of a bridge is its own. */
const slotsOfBridge = 31
/** Of the one family that has more members than a bridge has slots; the family there is small. */
const lastOfAll: Place = { bus: 2, slot: 31 }
const bridgeSlots = { 1: 0x1e, 2: 0x1d, 3: 0x1c } as const

function placeOf(machine: MachineKind, name: string): Place {
  const fixed = single[name]
  if (fixed) return fixed
  const [, family = '', index = ''] = /^([a-z]+)(\d+)$/.exec(name) ?? []
  const rule = families[family]
  if (!rule) throw new Error(`no PCI place is set aside for '${name}'`)
  const number = Number(index)
  const { bridge, onRoot, rootSlot, firstSlot = 1 } = rule
  if (machine === 'q35') return number < slotsOfBridge ? { bus: bridge, slot: number + firstSlot } : lastOfAll
  if (number < onRoot) return { bus: 0, slot: rootSlot + number }
  return { bus: bridge, slot: number - onRoot + firstSlot }
}

/** Properties `bus` and `addr` of the device called `name` (`net0`, `virtio3`, `scsihw0`, `vga`, …). */
export function pciPlace(machine: MachineKind, name: string): { bus: string; addr: string } {
  const { bus, slot } = placeOf(machine, name)
  return { bus: bus === 0 ? rootBus(machine) : `pci.${bus}`, addr: `0x${slot.toString(16)}` }
}

/** The bridges, to be given to QEMU before what sits behind them. */
export function bridgesToArgv(machine: MachineKind): string[] {
  return ([1, 2, 3] as const).flatMap((bus) =>
    device('pci-bridge', {
      id: `pci.${bus}`,
      chassis_nr: bus,
      bus: rootBus(machine),
      addr: `0x${bridgeSlots[bus].toString(16)}`,
      // Firmware keeps room for what may come later only behind a bridge that says it can be plugged into.
      shpc: true,
    }),
  )
}

function rootBus(machine: MachineKind): string {
  return machine === 'q35' ? 'pcie.0' : 'pci.0'
}
