/** Steps of a change of configuration that are the same for virtual machines and containers. */
import type { VolumeId } from '#base/ids.ts'
import { asVmid } from '#base/ids.ts'
import type { Errors } from '#base/schema/check.ts'
import { type Options, takeBack } from '#guests/config.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import type { Step, StepContext } from '#tasks/operation.ts'
import { eraseAll } from './volumes.ts'

/** What the change comes to, as the journal keeps it. */
export type ChangeFacts = {
  readonly before: Options
  readonly options: Options
  readonly make: readonly string[]
  readonly free: readonly VolumeId[]
  /** The running guest takes part in it. */
  readonly isLive: boolean
  /** Volumes the guest had before. */
  readonly volumes: readonly VolumeId[]
}

interface Change {
  readonly vmid: number
}
interface Guests {
  readonly guests: GuestService
}

/** Destroys what goes, at the very end; after a failure nothing is set aside any more. */
export const erasure: Step<
  Change,
  { readonly storage: StorageService },
  { readonly plan: Pick<ChangeFacts, 'free'> },
  void
> = {
  do: () => {},
  undo: ({ deps, done, task }) => eraseAll(deps.storage, done.plan?.free ?? [], task.upid),
  always: true,
}

/** Undo of the step that wrote the configuration. */
export async function takeBackChange({
  params,
  deps,
  done: { plan, volumes: written },
}: StepContext<Change, Guests, Partial<{ readonly plan: ChangeFacts; readonly volumes: Options }>>): Promise<void> {
  if (!plan || !written) return
  const vmid = asVmid(params.vmid)
  await deps.guests.changeConfig(vmid, (now) => takeBack(now, plan.before, written))
  // What the running guest became of the change goes the same way back.
  if (plan.isLive) await deps.guests.changeLive(vmid)
}

/** No undo: taking back the configuration takes the guest back to it, whatever it became. */
export const followLive: Step<Change, Guests, { readonly plan: ChangeFacts }, Errors> = {
  do: async ({ params, deps, done, log, warn, signal }) => {
    if (!done.plan.isLive) return {}
    const errors = await deps.guests.changeLive(asVmid(params.vmid), { log, signal })
    for (const [name, why] of Object.entries(errors)) warn(`${name}: ${why}; it stays pending`)
    return errors
  },
}
