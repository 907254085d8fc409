/** What follows from a guest's configuration alone. Lists ask for it all the time, so it is worked out once for each. */
import type { Vmid } from '#base/ids.ts'
import { type Options, optionsInForce } from './config.ts'
import type { GuestDocument } from './documents.ts'
import type { GuestStatus } from './guest.ts'
import { rulesOf } from './rules.ts'

export type ConfiguredFacts = Omit<GuestStatus, 'state'>

const known = new WeakMap<GuestDocument, ConfiguredFacts>()

/** @param running what the running guest has, which may be other than what is wanted */
export function configuredFacts(vmid: Vmid, document: GuestDocument, running?: Options): ConfiguredFacts {
  if (running !== undefined && !isAsWanted(running, document.options)) {
    return rulesOf(document.kind).facts(vmid, {
      ...document,
      options: optionsInForce({ options: document.options, running }),
    })
  }
  const facts = known.get(document) ?? rulesOf(document.kind).facts(vmid, document)
  known.set(document, facts)
  return facts
}

function isAsWanted(running: Options, wanted: Options): boolean {
  const names = Object.keys(wanted)
  return names.length === Object.keys(running).length && names.every((name) => running[name] === wanted[name])
}
