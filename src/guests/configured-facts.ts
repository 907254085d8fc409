/** What follows from a guest's configuration alone. Lists ask for it all the time, so it is worked out once for each. */
import type { Vmid } from '#base/ids.ts'
import { isTemplate, type Options, optionsInForce } from './config.ts'
import { type GuestDocument, lockOf } from './documents.ts'
import type { GuestStatus } from './guest.ts'
import { rulesOf } from './rules.ts'

export type ConfiguredFacts = Omit<GuestStatus, 'state'>

const known = new WeakMap<GuestDocument, ConfiguredFacts>()

/** @param running what the running guest has, which may be other than what is wanted */
export function configuredFacts(vmid: Vmid, document: GuestDocument, running?: Options): ConfiguredFacts {
  if (running !== undefined && !isAsWanted(running, document.options)) {
    return factsOf(vmid, { ...document, options: optionsInForce({ options: document.options, running }) })
  }
  const facts = known.get(document) ?? factsOf(vmid, document)
  known.set(document, facts)
  return facts
}

function factsOf(vmid: Vmid, document: GuestDocument): ConfiguredFacts {
  const { kind, options } = document
  const shared = { vmid, kind, options, lock: lockOf(document), isTemplate: isTemplate(options), tags: options.tags }
  return { ...shared, ...rulesOf(kind).facts(vmid, options) }
}

function isAsWanted(running: Options, wanted: Options): boolean {
  const names = Object.keys(wanted)
  return names.length === Object.keys(running).length && names.every((name) => running[name] === wanted[name])
}
