/** What follows from a guest's configuration alone. Lists ask for it all the time, so it is worked out once for each. */
import { MiB } from '#base/bytes.ts'
import type { Vmid } from '#base/ids.ts'
import { isTemplate, nameOf, type Options, optionsInForce } from './config.ts'
import type { GuestDocument } from './documents.ts'
import type { GuestStatus } from './guest.ts'
import { bootOrderOf } from './qemu/boot.ts'
import { topologyOf } from './qemu/cpu.ts'
import { drivesOf, rememberedSize } from './qemu/drive.ts'
import { memoryMiBOf } from './qemu/memory.ts'

export type ConfiguredFacts = Omit<GuestStatus, 'state'>

const known = new WeakMap<GuestDocument, ConfiguredFacts>()

/** @param running what the running guest has, which may be other than what is wanted */
export function configuredFacts(vmid: Vmid, document: GuestDocument, running?: Options): ConfiguredFacts {
  if (running !== undefined && !isAsWanted(running, document.options)) {
    return workedOut(vmid, { ...document, options: optionsInForce({ options: document.options, running }) })
  }
  const facts = known.get(document) ?? workedOut(vmid, document)
  known.set(document, facts)
  return facts
}

function isAsWanted(running: Options, wanted: Options): boolean {
  const names = Object.keys(wanted)
  return names.length === Object.keys(running).length && names.every((name) => running[name] === wanted[name])
}

function workedOut(vmid: Vmid, { options, reservedBy }: GuestDocument): ConfiguredFacts {
  const isFirst = bootOrderOf(options)
  const disks = drivesOf(options).filter(({ isCdrom }) => !isCdrom)
  const disk = disks.find(({ name }) => isFirst.includes(name)) ?? disks[0]
  return {
    vmid,
    kind: 'qemu',
    name: nameOf(options, vmid),
    options,
    lock: reservedBy === undefined ? options.lock : 'create',
    isTemplate: isTemplate(options),
    tags: options.tags,
    processors: topologyOf(options).plugged,
    maxMemoryBytes: memoryMiBOf(options) * MiB,
    maxDiskBytes: (disk && rememberedSize(disk)) ?? 0,
  }
}
