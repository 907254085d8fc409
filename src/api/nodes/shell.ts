/** `/nodes/{node}`: `termproxy`, `vncshell`, `spiceshell`, `vncwebsocket`. A terminal of the node itself. */
import { enumOf, object, optional, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { requireConsoleTicket, viewerOf } from '#operations/console/open.ts'
import { openShell, openShellScreen, shellCommands } from '#operations/console/shell.ts'
import { openShellSpice } from '#operations/console/spice.ts'
import { check, rootOnly } from '#rest/endpoint.ts'
import { certificatePem } from '#views/certificates.ts'
import { virtViewer, virtViewerFacts } from '#views/virt-viewer.ts'
import { endpoint } from '../call.ts'
import { openedScreen, openedTerminal, screenParams, spiceParams, websocketParams } from './console-shapes.ts'

const mayEnter = check('Sys.Console', '/nodes/{node}')

const shellParams = {
  node: nodeName,
  cmd: optional(enumOf(shellCommands, { description: 'What runs there.', default: 'login' })),
  'cmd-opts': optional(
    string({
      description: 'More words for the command; none of them takes any.',
      maxLength: 1024,
      default: '',
      requires: 'cmd',
    }),
  ),
}
const othersAreRoots = {
  says: 'Other commands than login: root@pam.',
  of: ({ cmd = 'login' }: { cmd?: string | undefined }) => (cmd === 'login' ? [] : [rootOnly]),
}

export const shellEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/termproxy',
    description: 'Open a terminal of the node: a shell for root@pam, the question for a login for everybody else.',
    proxyTo: 'node',
    params: shellParams,
    permission: mayEnter,
    alsoNeeds: othersAreRoots,
    returns: openedTerminal,
    cli: { command: ['node', 'shell'], terminal: '/nodes/{node}/vncwebsocket', examples: ['node shell'] },
    handle: (wish, { services, ...call }) => openShell(services, wish, viewerOf(call)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/vncshell',
    description: 'Open a terminal of the node drawn as a screen, for clients that speak VNC.',
    proxyTo: 'node',
    params: { ...shellParams, ...screenParams },
    permission: mayEnter,
    alsoNeeds: othersAreRoots,
    returns: openedScreen,
    async handle(wish, { services, ...call }) {
      const opened = await openShellScreen(services, wish, viewerOf(call))
      return { ...opened, cert: await certificatePem(services.certificates) }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/spiceshell',
    description:
      'Open a terminal of the node drawn for a viewer by SPICE: where and how it connects, within 40 seconds.',
    proxyTo: 'node',
    params: { ...shellParams, ...spiceParams },
    permission: mayEnter,
    alsoNeeds: othersAreRoots,
    returns: virtViewer,
    cli: { command: ['node', 'spice'], isViewerFile: true, examples: ['node spice > node.vv'] },
    handle: async ({ proxy, ...wish }, { services, host, ...call }) =>
      virtViewerFacts(await openShellSpice(services, wish, { ...viewerOf(call), host: proxy ?? host })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/vncwebsocket',
    description: 'Becomes a WebSocket to the terminal the ticket was handed out for.',
    proxyTo: 'node',
    params: { node: nodeName, ...websocketParams },
    permission: mayEnter,
    returns: object({ port: string({ description: 'The number of the console.' }) }),
    handle: ({ node, port, vncticket }, { services, who }) =>
      requireConsoleTicket(services, vncticket, { authId: who.authId, path: `/nodes/${node}`, port }),
  }),
]
