/** `/nodes/{node}/lxc/{vmid}`: `termproxy`, `vncproxy`, `spiceproxy`, `vncwebsocket`. A terminal of a container. */
import { asVmid } from '#base/ids.ts'
import { object, string } from '#base/schema/schema.ts'
import { openContainerScreen, openContainerTerminal } from '#operations/console/guest.ts'
import { requireConsoleTicket, viewerOf } from '#operations/console/open.ts'
import { openContainerSpice } from '#operations/console/spice.ts'
import { check } from '#rest/endpoint.ts'
import { certificatePem } from '#views/certificates.ts'
import { virtViewer, virtViewerFacts } from '#views/virt-viewer.ts'
import { endpoint } from '../../call.ts'
import { openedScreen, openedTerminal, screenParams, spiceParams, websocketParams } from '../console-shapes.ts'
import { guestAt } from '../qemu/at.ts'

const mayLook = check('VM.Console', '/vms/{vmid}')

export const containerConsoleEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/termproxy',
    description:
      'Open a terminal of a running container, as its cmode says; taken at `vncwebsocket`, within ten seconds.',
    proxyTo: 'node',
    params: guestAt,
    permission: mayLook,
    returns: openedTerminal,
    cli: {
      command: ['ct', 'console'],
      positional: ['vmid'],
      terminal: '/nodes/{node}/lxc/{vmid}/vncwebsocket',
      examples: ['ct console 200'],
    },
    handle: ({ vmid }, { services, ...call }) => openContainerTerminal(services, asVmid(vmid), viewerOf(call)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/vncproxy',
    description:
      'Open a terminal of a running container drawn as a screen: the ticket takes it at `vncwebsocket`, within ten seconds.',
    proxyTo: 'node',
    params: { ...guestAt, ...screenParams },
    permission: mayLook,
    returns: openedScreen,
    async handle({ vmid, width, height }, { services, ...call }) {
      const opened = await openContainerScreen(services, { vmid: asVmid(vmid), width, height }, viewerOf(call))
      return { ...opened, cert: await certificatePem(services.certificates) }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/spiceproxy',
    description:
      'Open a terminal of a running container drawn for a viewer by SPICE: where and how it connects, within 40 seconds.',
    proxyTo: 'node',
    params: { ...guestAt, ...spiceParams },
    permission: mayLook,
    returns: virtViewer,
    cli: {
      command: ['ct', 'spice'],
      positional: ['vmid'],
      isViewerFile: true,
      examples: ['ct spice 200 > ct-200.vv', 'ct spice 200 --proxy node.example.org > ct-200.vv'],
    },
    handle: async ({ vmid, proxy }, { services, host, ...call }) =>
      virtViewerFacts(await openContainerSpice(services, asVmid(vmid), { ...viewerOf(call), host: proxy ?? host })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/vncwebsocket',
    description: 'Becomes a WebSocket to the terminal the ticket was handed out for.',
    proxyTo: 'node',
    params: { ...guestAt, ...websocketParams },
    permission: mayLook,
    returns: object({ port: string({ description: 'The number of the console.' }) }),
    handle: ({ vmid, port, vncticket }, { services, who }) =>
      requireConsoleTicket(services, vncticket, { authId: who.authId, path: `/vms/${vmid}`, port }),
  }),
]
