/** Builds what a handler gets for one request. */
import { Fault } from '#base/fault.ts'
import { passing } from '#base/trace.ts'
import type { CallFacts } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import type { NodeServices } from '#services.ts'
import type { Json } from '#store/store.ts'
import type { Call } from './call.ts'

export function makeCall(services: NodeServices): (facts: CallFacts) => Call {
  return ({ who, signal, remoteAddress, host, again }) => {
    if (who) services.hostNetwork.heard({ user: who.user, remoteAddress })
    return {
      // Only endpoints open to the world are called by nobody, and none of them asks who calls.
      who: who ?? { user: 'nobody', authId: 'nobody' },
      services,
      signal,
      remoteAddress,
      host,
      again,
      start: (operation, params) =>
        passing('task', operation.name, () =>
          services.tasks.start({
            operation: operation.name,
            params: asJson(params),
            user: who?.authId ?? 'nobody',
            ...(who?.task === undefined ? {} : { parent: who.task }),
          }),
        ),
      may(path, ...privileges) {
        // Asked for every row of a list.
        if (!who) return never
        return services.access.isRoot(who) ? always : holdsAll(services, who, path, privileges)
      },
    }
  }
}

const always = Promise.resolve(true)
const never = Promise.resolve(false)

async function holdsAll(
  { access }: NodeServices,
  who: Identity,
  path: string,
  privileges: readonly string[],
): Promise<boolean> {
  const held = await access.privilegesOn(who, path)
  return privileges.every((privilege) => held.has(privilege))
}

/** Parameters travel to the task's process as JSON. */
function asJson(params: unknown): Json {
  const text = JSON.stringify(params)
  if (text === undefined) throw new Fault('failed', 'an operation was started without parameters')
  return JSON.parse(text) as Json
}
