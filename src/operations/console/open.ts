/** The first act of opening a console, alike for all of them: a number, a task, a ticket. */
import type { Duplex } from 'node:stream'
import { Fault } from '#base/fault.ts'
import { password } from '#base/random.ts'
import type { NodeServices } from '#services.ts'

export interface Viewer {
  /** User, or token when one acts. */
  readonly authId: string
  readonly remoteAddress: string
}

export function viewerOf(call: { readonly who: { readonly authId: string }; readonly remoteAddress: string }): Viewer {
  return { authId: call.who.authId, remoteAddress: call.remoteAddress }
}

export interface ConsoleWish {
  readonly viewer: Viewer
  /** What it belongs to: `/vms/100`, `/nodes/lab`. */
  readonly path: string
  readonly privilege: string
  /** Of the task, with what it is about. */
  readonly task: { readonly type: 'vncproxy' | 'vncshell' | 'spiceproxy' | 'spiceshell'; readonly id: string }
  /** For people: `the screen of VM 100`. */
  readonly says: string
  /** A screen asks for a password. */
  readonly hasPassword?: boolean
  /** Its ticket, where it is not one of VNC. */
  readonly write?: (claim: { readonly authId: string; readonly path: string; readonly port: number }) => Promise<string>
  readonly serve: (client: Duplex, door: Door) => Promise<void>
  /** Serves further connections of one client. */
  readonly serveMore?: (client: Duplex) => Promise<void>
  readonly waitMs?: number
}

/** What the client has to know. */
export interface Door {
  readonly user: string
  readonly ticket: string
  /** Empty where none is asked for. */
  readonly password: string
}

export interface OpenedConsole extends Door {
  readonly port: number
  readonly upid: string
}

/** @throws Fault `exhausted` when too many are open */
export async function openConsole(services: NodeServices, wish: ConsoleWish): Promise<OpenedConsole> {
  const { consoles, access, tasks, random } = services
  const { viewer, path, privilege, says, serve, serveMore, waitMs } = wish
  const user = viewer.authId
  const { port, giveBack } = consoles.promise(user)
  try {
    const secret = wish.hasPassword ? password(random, 8) : ''
    const claim = { authId: user, path, port }
    const ticket = await (wish.write?.(claim) ?? access.consoles.write(claim, secret))
    const door: Door = { user, ticket, password: secret }
    const task = await tasks.attend({ ...wish.task, user })
    task.log(`${says} for ${user}${viewer.remoteAddress === '' ? '' : ` at ${viewer.remoteAddress}`}`)
    consoles.open(port, {
      ticket,
      task,
      serve: (client) => serve(client, door),
      ...(serveMore ? { serveMore } : {}),
      ...(waitMs === undefined ? {} : { waitMs }),
      mayStill: () => access.consoles.mayStill(user, path, [privilege]),
    })
    return { ...door, port, upid: task.upid }
  } catch (error) {
    giveBack()
    throw error
  }
}

/** The second act, as far as it is the API's: whether the ticket is this caller's, for this console. */
export async function requireConsoleTicket(
  { access }: Pick<NodeServices, 'access'>,
  ticket: string,
  claim: { readonly authId: string; readonly path: string; readonly port: number },
): Promise<{ port: string }> {
  if (await access.consoles.holds(ticket, claim)) return { port: String(claim.port) }
  throw new Fault('unauthenticated', 'permission denied - invalid PVEVNC ticket')
}
