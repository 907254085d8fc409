/**
 * A shell of the node. The administrator in person has logged in already; everybody else meets `login`, which asks
 * for a user of this machine and his password: a right in this API makes nobody root.
 */
import { Fault, invalid } from '#base/fault.ts'
import { serveTerminal } from '#consoles/terminal.ts'
import type { Argv } from '#host/host.ts'
import { startOnPty } from '#host/programs/pty.ts'
import type { NodeServices } from '#services.ts'
import { drawnTerminal, type Size } from './drawn-terminal.ts'
import { openConsole, type OpenedConsole, type Viewer } from './open.ts'

export const shellCommands = ['ceph_install', 'login', 'upgrade'] as const

export interface ShellWish {
  readonly cmd?: (typeof shellCommands)[number] | undefined
  readonly 'cmd-opts'?: string | undefined
}

/** @throws Fault `failed` for a command this release does not know, `invalid` for words it does not take */
export async function openShell(services: NodeServices, wish: ShellWish, viewer: Viewer): Promise<OpenedConsole> {
  const { argv, common } = shellFor(services, wish, viewer)
  return openConsole(services, {
    ...common,
    serve: (client, { user, ticket }) => serveTerminal(client, { user, ticket, connect: () => startOnPty(argv) }),
  })
}

/** The same, drawn on a screen. @throws Fault `missing` where the programs for that are not installed */
export async function openShellScreen(
  services: NodeServices,
  { width, height, ...wish }: ShellWish & Size,
  viewer: Viewer,
): Promise<OpenedConsole> {
  const { argv, common } = shellFor(services, wish, viewer)
  const serve = await drawnTerminal(services, argv, { width, height })
  return openConsole(services, { ...common, hasPassword: true, serve })
}

/** The program, and what is alike however it is shown. */
export function shellFor({ access, settings }: NodeServices, wish: ShellWish, viewer: Viewer) {
  const { cmd = 'login', 'cmd-opts': words = '' } = wish
  if (words !== '') throw invalid({ 'cmd-opts': `'${cmd}' takes no more words` })
  const argv = programOf(cmd, access.isRoot({ user: viewer.authId, authId: viewer.authId }))
  const common = {
    path: `/nodes/${settings.node}`,
    privilege: 'Sys.Console',
    task: { type: 'vncshell', id: '' },
    viewer,
    says: `a terminal of node ${settings.node} (${argv.join(' ')})`,
  } as const
  return { argv, common }
}

function programOf(command: (typeof shellCommands)[number], isRoot: boolean): Argv {
  switch (command) {
    case 'login':
      return isRoot ? ['login', '-f', 'root'] : ['login']
    case 'upgrade':
      return ['apt-get', 'dist-upgrade']
    case 'ceph_install':
      throw new Fault('failed', 'Ceph is not supported by this release')
    default:
      return command satisfies never
  }
}
