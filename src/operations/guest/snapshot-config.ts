/**
 * Snapshots in the configuration of a guest, of whatever kind: who may have a new one, what it keeps, and how one goes.
 *
 * A snapshot is there once the configuration says so. What lies in the volumes without that is a leftover.
 */
import { Fault, missing } from '#base/fault.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import { type GuestConfig, isTemplate, type Options, type Snapshot } from '#guests/config.ts'
import { type GuestKind, nounOf } from '#guests/kind.ts'
import type { GuestService } from '#guests/service.ts'
import type { StepContext } from '#tasks/operation.ts'

interface Named {
  readonly vmid: number
  readonly name: string
}

interface Guests {
  readonly guests: GuestService
}

/** @throws Fault in PVE's words when the guest can have no snapshot of that name */
export function requireNewSnapshot(
  vmid: Vmid,
  { options, snapshots = {} }: Pick<GuestConfig, 'options' | 'snapshots'>,
  name: string,
  kind: GuestKind = 'qemu',
): void {
  if (name === 'current') throw new Fault('invalid', `unable to use snapshot name 'current' (reserved name)`)
  if (isTemplate(options)) {
    throw new Fault('conflict', `you can't take a snapshot if it is a template (${nounOf[kind]} ${vmid})`)
  }
  if (snapshots[name]) throw new Fault('conflict', `snapshot name '${name}' already used`)
}

/** @throws Fault `missing` */
export function requireSnapshot({ snapshots = {} }: Pick<GuestConfig, 'snapshots'>, name: string): Snapshot {
  const snapshot = snapshots[name]
  if (!snapshot) throw missing('snapshot', name)
  return snapshot
}

/** Of a guest's options, what a snapshot keeps: what the guest is made of. */
export function keptOptions(options: Options): Options {
  const isKept = (name: string) => !/^(unused\d+|lock|description|template)$/.test(name)
  return Object.fromEntries(Object.entries(options).filter(([name]) => isKept(name)))
}

/** From now on the guest has the snapshot, and stands on it. */
export async function rememberSnapshot({ guests }: Guests, { vmid, name }: Named, snapshot: Snapshot): Promise<void> {
  await guests.changeSnapshots(asVmid(vmid), ({ options, snapshots }) => ({
    options: { ...options, parent: name },
    snapshots: { ...snapshots, [name]: snapshot },
  }))
}

/** Undo of the step that remembered it. The check saw that there was none of that name. */
export async function unrememberSnapshot({
  params,
  deps,
  done,
}: StepContext<Named, Guests, { readonly check?: object }>): Promise<void> {
  if (done.check) await forgetSnapshot(deps, asVmid(params.vmid), params.name)
}

/** Takes the snapshot out of the configuration; those that came after it now follow the one before it. */
export async function forgetSnapshot({ guests }: Guests, vmid: Vmid, name: string): Promise<void> {
  await guests.changeSnapshots(vmid, ({ options, snapshots }) => {
    const gone = snapshots[name]
    if (!gone) return { options, snapshots }
    const { parent } = gone.options
    const without = (some: Options): Options => {
      if (some.parent !== name) return some
      const { parent: _, ...rest } = some
      return parent === undefined ? rest : { ...rest, parent }
    }
    const others = Object.entries(snapshots).filter(([other]) => other !== name)
    return {
      options: without(options),
      snapshots: Object.fromEntries(others.map(([other, one]) => [other, { ...one, options: without(one.options) }])),
    }
  })
}
