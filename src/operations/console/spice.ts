/**
 * Looking by SPICE: at a virtual machine, which serves it itself, and at a terminal of a container or of the node, which
 * is drawn for the viewer. A viewer comes with a connection for each of its channels, all by one ticket.
 */
import type { Duplex } from 'node:stream'
import { nodeInSpiceTicket, subjectOfSpiceTicket } from '#access/spice-ticket.ts'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { password as newPassword } from '#base/random.ts'
import { consoleLimits } from '#consoles/limits.ts'
import { SpiceSession } from '#consoles/spice-session.ts'
import type { Argv } from '#host/host.ts'
import { makeSelfSigned } from '#host/web/self-signed.ts'
import type { NodeServices } from '#services.ts'
import { drawnSpiceTerminal } from './drawn-terminal.ts'
import { type ConsoleWish, openConsole, type Viewer } from './open.ts'
import { shellFor, type ShellWish } from './shell.ts'

export interface SpiceViewer extends Viewer {
  /** Name or address it reaches the node by; absent: the one the node is told to serve at, or its name. */
  readonly host: string | undefined
}

/** @throws Fault `conflict` when the guest has no SPICE, `unavailable` when this node does not serve it */
export async function openSpice(services: NodeServices, vmid: Vmid, viewer: SpiceViewer) {
  const { guests, spice, clock } = services
  const { name } = await guests.status(vmid)
  const certificate = await guests.consoles.requireSpice(vmid)
  spice.port()
  const password = spice.passwordFor(certificate)
  await guests.consoles.admitToSpice(vmid, password, consoleLimits.spiceWaitMs / 1000)
  const session = new SpiceSession({ connect: () => guests.consoles.connectSpice(vmid), clock })
  return opened(services, {
    ...ofGuest(vmid),
    viewer,
    says: `VM ${vmid} by SPICE`,
    title: `VM ${vmid} - ${name}`,
    password,
    certificate,
    session,
  })
}

/**
 * A terminal of a container.
 * @throws Fault `conflict` 'CT 100 not running', `missing` where the programs that draw it are not installed,
 *   `unavailable` when this node does not serve SPICE
 */
export async function openContainerSpice(services: NodeServices, vmid: Vmid, viewer: SpiceViewer) {
  const { guests } = services
  const argv = await guests.terminalArgv(vmid)
  const { name } = await guests.status(vmid)
  const says = `a terminal of CT ${vmid} by SPICE`
  return openTerminal(services, argv, {
    ...ofGuest(vmid),
    viewer,
    says,
    title: `CT ${vmid} - ${name}`,
    whose: `CT ${vmid}`,
  })
}

/** A terminal of the node. @throws as `openShell`; `missing`, `unavailable` as for a container */
export async function openShellSpice(services: NodeServices, wish: ShellWish, viewer: SpiceViewer) {
  const { argv, common } = shellFor(services, wish, viewer)
  const whose = `node ${services.settings.node}`
  const task = { type: 'spiceshell', id: '' } as const
  return openTerminal(services, argv, { ...common, viewer, task, subject: nodeInSpiceTicket, title: whose, whose })
}

interface SpiceWish extends Pick<ConsoleWish, 'path' | 'privilege' | 'task' | 'says'> {
  /** In the ticket. */
  readonly subject: number
  readonly title: string
  readonly viewer: SpiceViewer
}

const ofGuest = (vmid: Vmid) =>
  ({
    path: `/vms/${vmid}`,
    privilege: 'VM.Console',
    task: { type: 'spiceproxy', id: String(vmid) },
    subject: vmid,
  }) as const

/** A viewer's channels may come late, but not that late. */
const validDays = 30

/** @param wish with the name in its certificate */
async function openTerminal(services: NodeServices, argv: Argv, wish: SpiceWish & { readonly whose: string }) {
  const { spice, clock, random } = services
  spice.port()
  const subject = `CN=${wish.whose}, O=Hakobune`
  const tls = await makeSelfSigned({ subject, validDays, clock, random })
  const password = newPassword(random, 24)
  const session = await drawnSpiceTerminal(services, argv, { password, tls })
  return opened(services, { ...wish, password, certificate: tls.certificate, session })
}

interface Opening extends SpiceWish {
  readonly password: string
  readonly certificate: string
  readonly session: Pick<SpiceSession, 'serve' | 'serveMore'>
}

/** @returns what the viewer is told */
async function opened(services: NodeServices, { subject, title, password, certificate, session, ...wish }: Opening) {
  const { spice, access, settings } = services
  const { apiHost, node } = settings
  const isAnywhere = apiHost === '0.0.0.0' || apiHost === '::'
  const proxy = { host: wish.viewer.host ?? (isAnywhere ? node : apiHost), port: spice.port() }
  const { ticket, port: number } = await openConsole(services, {
    ...wish,
    write: (claim) => access.consoles.writeSpice(claim, subject),
    serve: (main) => session.serve(main),
    serveMore: (channel) => session.serveMore(channel),
    waitMs: consoleLimits.spiceWaitMs,
  })
  return { title, ticket, number, password, proxy, certificate }
}

/**
 * Takes what a ticket was written for; whoever brings it has said no more.
 * @returns gives it a connection of the viewer
 * @throws Fault `unauthenticated` for a ticket that does not hold, `missing` when nothing waits for it
 */
export async function takeSpice(
  { access, consoles, settings }: Pick<NodeServices, 'access' | 'consoles' | 'settings'>,
  ticket: string,
  port: number,
): Promise<(channel: Duplex) => void> {
  const [authId, subject] = [consoles.authIdAt(port), subjectOfSpiceTicket(ticket)]
  const [path, privilege] =
    subject === nodeInSpiceTicket ? [`/nodes/${settings.node}`, 'Sys.Console'] : [`/vms/${subject ?? 0}`, 'VM.Console']
  const claim = { authId: authId ?? '', path, port }
  if (authId === undefined || subject === undefined || !(await access.consoles.holdsSpice(ticket, claim))) {
    throw new Fault('unauthenticated', 'permission denied - invalid SPICE ticket')
  }
  if (!(await access.consoles.mayStill(authId, path, [privilege]))) {
    throw new Fault('denied', `Permission check failed (${path}, ${privilege})`)
  }
  return consoles.take(port, ticket)
}
