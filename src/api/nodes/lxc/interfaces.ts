/** `/nodes/{node}/lxc/{vmid}/interfaces`: the network as the container sees it. */
import { asVmid } from '#base/ids.ts'
import { array, integer, object, optional, string } from '#base/schema/schema.ts'
import { check } from '#rest/endpoint.ts'
import { containerInterfaces } from '#views/container-interfaces.ts'
import { endpoint } from '../../call.ts'
import { guestAt } from '../qemu/at.ts'

const text = (description: string) => optional(string({ description }))

export const interfaceEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/interfaces',
    description: 'Network cards of a running container with their addresses.',
    proxyTo: 'node',
    params: guestAt,
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: array(
      object({
        name: string({ description: 'Name inside.' }),
        hwaddr: string({ description: 'MAC address.' }),
        'hardware-address': string({ description: 'The same, as the agent of a virtual machine calls it.' }),
        inet: text('First IPv4 address with its prefix.'),
        inet6: text('First IPv6 address with its prefix.'),
        'ip-addresses': array(
          object({
            'ip-address': string({ description: 'Address.' }),
            'ip-address-type': string({ description: 'inet or inet6.' }),
            prefix: integer({ description: 'Length of its network.' }),
          }),
        ),
      }),
    ),
    cli: {
      command: ['ct', 'interfaces'],
      positional: ['vmid'],
      columns: ['name', 'hwaddr', 'inet', 'inet6'],
      id: 'name',
      examples: ['ct interfaces 200'],
    },
    handle: ({ vmid }, { services }) => containerInterfaces(services, asVmid(vmid)),
  }),
]
