/** A terminal as a screen, for clients that speak VNC: of the node, and of a container. */
import type { Duplex } from 'node:stream'
import { join } from 'node:path'
import { serveScreen } from '#consoles/screen.ts'
import type { Argv } from '#host/host.ts'
import { requireVncTerminal, startVncTerminal } from '#host/vnc-terminal.ts'
import type { NodeServices } from '#services.ts'
import type { Door } from './open.ts'

/** In the node's run directory. */
export const screensDirectory = 'screens'

export interface Size {
  readonly width?: number | undefined
  readonly height?: number | undefined
}

/** @returns serves a client the terminal this program runs on @throws Fault `missing` naming what is not installed */
export async function drawnTerminal(
  { host, random, settings }: Pick<NodeServices, 'host' | 'random' | 'settings'>,
  argv: Argv,
  { width = 1024, height = 768 }: Size,
): Promise<(client: Duplex, door: Door) => Promise<void>> {
  await requireVncTerminal()
  // The front has the number below the guests', this the one below that.
  const place = { uid: settings.uidBase - 2, width, height, random, host }
  const connect = () =>
    startVncTerminal(argv, { ...place, directory: join(settings.runDir, screensDirectory, random.uuid()) })
  return (client, { password }) => serveScreen(client, { password, random, connect })
}
