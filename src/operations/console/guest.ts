/**
 * Consoles of a guest: the screen of a virtual machine, by VNC and by SPICE, the terminal at its serial port, that of
 * a container.
 */
import type { Duplex } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { guestInSpiceTicket } from '#access/spice-ticket.ts'
import { consoleLimits } from '#consoles/limits.ts'
import { serveScreen } from '#consoles/screen.ts'
import { SpiceSession } from '#consoles/spice-session.ts'
import { serveTerminal } from '#consoles/terminal.ts'
import { startOnPty } from '#host/pty.ts'
import type { NodeServices } from '#services.ts'
import { drawnTerminal, type Size } from './drawn-terminal.ts'
import { openConsole, type OpenedConsole, type Viewer } from './open.ts'

const consoleOf = (vmid: Vmid) =>
  ({ path: `/vms/${vmid}`, privilege: 'VM.Console', task: { type: 'vncproxy', id: String(vmid) } }) as const

export async function openScreen(services: NodeServices, vmid: Vmid, viewer: Viewer): Promise<OpenedConsole> {
  const { guests, random } = services
  await guests.consoles.requireScreen(vmid)
  return openConsole(services, {
    ...consoleOf(vmid),
    viewer,
    says: `the screen of VM ${vmid}`,
    hasPassword: true,
    serve: (client, { password }) =>
      serveScreen(client, { password, random, connect: () => guests.consoles.connectScreen(vmid) }),
  })
}

/** @param wanted `serial1`; absent: the port that is its console */
export async function openSerial(
  services: NodeServices,
  vmid: Vmid,
  wanted: string | undefined,
  viewer: Viewer,
): Promise<OpenedConsole> {
  const { guests, serialLines } = services
  const port = await guests.consoles.serialPort(vmid, wanted)
  const connect = async () => ({
    stream: await serialLines.join(`${vmid}/serial${port}`, () => guests.consoles.connectSerial(vmid, port)),
  })
  return openConsole(services, {
    ...consoleOf(vmid),
    viewer,
    says: `serial${port} of VM ${vmid}`,
    serve: (client, { user, ticket }) => serveTerminal(client, { user, ticket, connect }),
  })
}

/** A terminal of a container. @throws Fault `conflict` 'CT 100 not running' */
export async function openContainerTerminal(
  services: NodeServices,
  vmid: Vmid,
  viewer: Viewer,
): Promise<OpenedConsole> {
  const argv = await services.guests.terminalArgv(vmid)
  const connect = async () => {
    const pty = await startOnPty(argv)
    const resize = (columns: number, rows: number) => {
      pty.resize(columns, rows)
      // It may end at this moment; then its stream does as well.
      services.guests.resizeConsole(vmid, columns, rows).catch(() => {})
    }
    return { stream: pty.stream, resize }
  }
  return openConsole(services, {
    ...consoleOf(vmid),
    viewer,
    says: `a terminal of CT ${vmid}`,
    serve: (client, { user, ticket }) => serveTerminal(client, { user, ticket, connect }),
  })
}

/** The same terminal, drawn on a screen. @throws Fault `missing` where the programs for that are not installed */
export async function openContainerScreen(
  services: NodeServices,
  { vmid, ...size }: { readonly vmid: Vmid } & Size,
  viewer: Viewer,
): Promise<OpenedConsole> {
  const argv = await services.guests.terminalArgv(vmid)
  const serve = await drawnTerminal(services, argv, size)
  const says = `a terminal of CT ${vmid}, drawn`
  return openConsole(services, { ...consoleOf(vmid), viewer, says, hasPassword: true, serve })
}

export interface SpiceViewer extends Viewer {
  /** Name or address it reaches the node by; absent: the one the node is told to serve at, or its name. */
  readonly host: string | undefined
}

/**
 * A viewer by SPICE comes with a connection for each of its channels, all by one ticket.
 * @throws Fault `conflict` when the guest has no SPICE, `unavailable` when this node does not serve it
 */
export async function openSpice(services: NodeServices, vmid: Vmid, viewer: SpiceViewer) {
  const { guests, spice, access, settings, clock } = services
  const { name } = await guests.status(vmid)
  const certificate = await guests.consoles.requireSpice(vmid)
  const port = spice.port()
  const password = spice.passwordFor(certificate)
  await guests.consoles.admitToSpice(vmid, password, consoleLimits.spiceWaitMs / 1000)
  const session = new SpiceSession({ connect: () => guests.consoles.connectSpice(vmid), clock })
  const { ticket, port: number } = await openConsole(services, {
    ...consoleOf(vmid),
    task: { type: 'spiceproxy', id: String(vmid) },
    viewer,
    says: `VM ${vmid} by SPICE`,
    write: (claim) => access.consoles.writeSpice(claim, vmid),
    serve: (main) => session.serve(main),
    serveMore: (channel) => session.serveMore(channel),
    waitMs: consoleLimits.spiceWaitMs,
  })
  const { apiHost, node } = settings
  const isAnywhere = apiHost === '0.0.0.0' || apiHost === '::'
  const proxy = { host: viewer.host ?? (isAnywhere ? node : apiHost), port }
  return { title: `VM ${vmid} - ${name}`, ticket, number, password, proxy, certificate }
}

/**
 * Takes the guest a ticket was written for; whoever brings it has said no more.
 * @returns gives it a connection of the viewer
 * @throws Fault `unauthenticated` for a ticket that does not hold, `missing` when nothing waits for it
 */
export async function takeSpice(
  { access, consoles }: Pick<NodeServices, 'access' | 'consoles'>,
  ticket: string,
  port: number,
): Promise<(channel: Duplex) => void> {
  const [authId, vmid] = [consoles.authIdAt(port), guestInSpiceTicket(ticket)]
  const claim = { authId: authId ?? '', path: `/vms/${vmid ?? 0}`, port }
  if (authId === undefined || vmid === undefined || !(await access.consoles.holdsSpice(ticket, claim))) {
    throw new Fault('unauthenticated', 'permission denied - invalid SPICE ticket')
  }
  if (!(await access.consoles.mayStill(authId, claim.path, ['VM.Console']))) {
    throw new Fault('denied', `Permission check failed (${claim.path}, VM.Console)`)
  }
  return consoles.take(port, ticket)
}
