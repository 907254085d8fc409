/**
 * Consoles of a guest: the screen of a virtual machine, the terminal at its serial port, that of a container. By SPICE:
 * `spice.ts`.
 */
import type { Vmid } from '#base/ids.ts'
import { serveScreen } from '#consoles/screen.ts'
import { serveTerminal } from '#consoles/terminal.ts'
import { startOnPty } from '#host/programs/pty.ts'
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
