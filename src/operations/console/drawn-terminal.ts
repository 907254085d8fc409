/** A terminal as a screen, for clients that speak VNC and for viewers by SPICE: of the node, and of a container. */
import type { Duplex } from 'node:stream'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { serveScreen } from '#consoles/screen.ts'
import { SpiceSession } from '#consoles/spice-session.ts'
import type { Argv } from '#host/host.ts'
import type { KeyAndCertificate } from '#host/web/self-signed.ts'
import { requireSpiceTerminal, type SpiceTerminal, startSpiceTerminal } from '#host/screens/spice-terminal.ts'
import { requireVncTerminal, startVncTerminal } from '#host/screens/vnc-terminal.ts'
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
  const connect = () => startVncTerminal(argv, { ...placeOf({ random, settings }), width, height, random, host })
  return (client, { password }) => serveScreen(client, { password, random, connect })
}

/**
 * The same for a viewer by SPICE, of whom there is one.
 * @param door what he is told: the password, and whose certificate he meets
 * @returns serves his main channel, and his others
 * @throws Fault `missing` naming what is not installed
 */
export async function drawnSpiceTerminal(
  { host, random, settings, clock }: Pick<NodeServices, 'host' | 'random' | 'settings' | 'clock'>,
  argv: Argv,
  door: { readonly password: string; readonly tls: KeyAndCertificate },
): Promise<Pick<SpiceSession, 'serve' | 'serveMore'>> {
  await requireSpiceTerminal()
  let terminal: SpiceTerminal | undefined
  const session = new SpiceSession({
    async connect() {
      if (terminal) return terminal.connect()
      throw new Fault('unavailable', 'the terminal is yet to be drawn: the main channel comes first')
    },
    clock,
  })
  return {
    async serve(main) {
      await using started = await startSpiceTerminal(argv, { ...placeOf({ random, settings }), ...door, random, host })
      terminal = started
      await session.serve(main)
    },
    serveMore: (channel) => session.serveMore(channel),
  }
}

function placeOf({ random, settings }: Pick<NodeServices, 'random' | 'settings'>) {
  return {
    // The front has the number below the guests', this the one below that.
    uid: settings.uidBase - 2,
    directory: join(settings.runDir, screensDirectory, random.uuid()),
  }
}
