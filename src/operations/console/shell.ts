/**
 * A shell of the node. The administrator in person has logged in already; everybody else meets `login`, which asks
 * for a user of this machine and his password: a right in this API makes nobody root.
 */
import { Fault, invalid } from '#base/fault.ts'
import { serveTerminal } from '#consoles/terminal.ts'
import type { Argv } from '#host/host.ts'
import { startOnPty } from '#host/pty.ts'
import type { NodeServices } from '#services.ts'
import { openConsole, type OpenedConsole, type Viewer } from './open.ts'

export const shellCommands = ['ceph_install', 'login', 'upgrade'] as const

/** @throws Fault `failed` for a command this release does not know, `invalid` for words it does not take */
export async function openShell(
  services: NodeServices,
  command: (typeof shellCommands)[number],
  words: string | undefined,
  viewer: Viewer,
): Promise<OpenedConsole> {
  const { access, settings } = services
  if (words !== undefined && words !== '') throw invalid({ 'cmd-opts': `'${command}' takes no more words` })
  const argv = programOf(command, access.isRoot({ user: viewer.authId, authId: viewer.authId }))
  return openConsole(services, {
    path: `/nodes/${settings.node}`,
    privilege: 'Sys.Console',
    task: { type: 'vncshell', id: '' },
    viewer,
    says: `a terminal of node ${settings.node} (${argv.join(' ')})`,
    serve: (client, { user, ticket }) => serveTerminal(client, { user, ticket, connect: () => startOnPty(argv) }),
  })
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
