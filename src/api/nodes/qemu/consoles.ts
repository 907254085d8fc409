/** `/nodes/{node}/qemu/{vmid}`: `vncproxy`, `spiceproxy`, `termproxy`, `vncwebsocket`. The guest's screen and its serial ports. */
import { asVmid } from '#base/ids.ts'
import { boolean, enumOf, object, optional, string } from '#base/schema/schema.ts'
import { openScreen, openSerial } from '#operations/console/guest.ts'
import { requireConsoleTicket, viewerOf } from '#operations/console/open.ts'
import { openSpice } from '#operations/console/spice.ts'
import { check } from '#rest/endpoint.ts'
import { certificatePem } from '#views/certificates.ts'
import { virtViewer, virtViewerFacts } from '#views/virt-viewer.ts'
import { endpoint } from '../../call.ts'
import { openedScreen, openedTerminal, spiceParams, websocketParams } from '../console-shapes.ts'
import { guestAt } from './at.ts'

const mayLook = check('VM.Console', '/vms/{vmid}')

export const guestConsoleEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/vncproxy',
    description: 'Open the screen of a running guest: the ticket takes it at `vncwebsocket`, once, within ten seconds.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      websocket: optional(boolean({ description: 'Accepted; the screen is reached by WebSocket in any case.' })),
      'generate-password': optional(
        boolean({
          description: 'Return the password of the screen by itself. The ticket begins with it as well.',
          default: false,
        }),
      ),
    },
    permission: mayLook,
    returns: openedScreen,
    async handle({ vmid, 'generate-password': isWanted }, { services, ...call }) {
      const { password, ...opened } = await openScreen(services, asVmid(vmid), viewerOf(call))
      return {
        ...opened,
        cert: await certificatePem(services.certificates),
        ...(isWanted === true ? { password } : {}),
      }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/spiceproxy',
    description: 'Open a running guest by SPICE: where and how a viewer connects, within 40 seconds.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      ...spiceParams,
    },
    permission: mayLook,
    returns: virtViewer,
    cli: {
      command: ['vm', 'spice'],
      positional: ['vmid'],
      isViewerFile: true,
      examples: ['vm spice 100 > vm-100.vv', 'vm spice 100 --proxy node.example.org > vm-100.vv'],
    },
    handle: async ({ vmid, proxy }, { services, host, ...call }) =>
      virtViewerFacts(await openSpice(services, asVmid(vmid), { ...viewerOf(call), host: proxy ?? host })),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/termproxy',
    description: 'Open a terminal at a serial port of a running guest; taken at `vncwebsocket` like a screen.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      serial: optional(
        enumOf(['serial0', 'serial1', 'serial2', 'serial3'], {
          description: 'Which port; else the one that is the display, or the first.',
        }),
      ),
    },
    permission: mayLook,
    returns: openedTerminal,
    cli: {
      command: ['vm', 'console'],
      positional: ['vmid'],
      terminal: '/nodes/{node}/qemu/{vmid}/vncwebsocket',
      examples: ['vm console 100', 'vm console 100 --serial serial1'],
    },
    handle: ({ vmid, serial }, { services, ...call }) => openSerial(services, asVmid(vmid), serial, viewerOf(call)),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/vncwebsocket',
    description: 'Becomes a WebSocket to the screen or terminal the ticket was handed out for.',
    proxyTo: 'node',
    params: { ...guestAt, ...websocketParams },
    permission: mayLook,
    returns: object({ port: string({ description: 'The number of the console.' }) }),
    handle: ({ vmid, port, vncticket }, { services, who }) =>
      requireConsoleTicket(services, vncticket, { authId: who.authId, path: `/vms/${vmid}`, port }),
  }),
]
