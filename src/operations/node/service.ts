/** Starts, stops, restarts or reloads a service of the machine, and waits until systemd says it is done. */
import type { Host } from '#host/host.ts'
import { actOnUnit, requireSystemd, type UnitAct } from '#host/system/systemd.ts'
import { operation } from '#tasks/operation.ts'

export interface ActOnService {
  /** Name in the API, without `.service`. */
  readonly service: string
  readonly unit: string
}

interface Deps {
  readonly host: Host
}

// No undo: a service that was stopped and does not start again is for its owner to look at.
const act = (name: string, what: UnitAct) =>
  operation<ActOnService, Deps>(name, { id: ({ service }) => service, locks: ({ unit }) => [`service/${unit}`] }).step(
    what,
    {
      async do({ params, deps, signal }) {
        await requireSystemd()
        await actOnUnit(deps.host, what, params.unit, signal)
      },
    },
  )

export const startService = act('srvstart', 'start')
export const stopService = act('srvstop', 'stop')
export const restartService = act('srvrestart', 'restart')
export const reloadService = act('srvreload', 'reload')
