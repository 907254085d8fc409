/** `/nodes/{node}/lxc/{vmid}/resize`: the volumes of a container. */
import { asVmid } from '#base/ids.ts'
import { enumOf, optional, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import { mountCount } from '#guests/lxc/mountpoint.ts'
import { resizeVolume } from '#operations/guest/resize-container.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../../call.ts'
import { guestAt } from '../qemu/at.ts'

const volumeName = enumOf(['rootfs', ...Array.from({ length: mountCount }, (_, index) => `mp${index}`)], {
  description: 'Which volume.',
})

export const volumeEndpoints = [
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/lxc/{vmid}/resize',
    description: 'Make a volume of a container larger, also while it runs.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      disk: volumeName,
      size: string({
        description: 'Its size, or with + how much more.',
        pattern: /\+?\d+(\.\d+)?[KMGT]?/,
        maxLength: 32,
      }),
      digest: optional(string({ description: 'Only when the configuration is still that.', maxLength: 40 })),
    },
    permission: check('VM.Config.Disk', '/vms/{vmid}'),
    returns: upid,
    cli: {
      command: ['ct', 'resize'],
      positional: ['vmid', 'disk', 'size'],
      examples: ['ct resize 200 rootfs +2G', 'ct resize 200 mp0 16G'],
    },
    async handle({ vmid, disk, size, digest }, call) {
      await call.services.guests.config(asVmid(vmid), 'lxc')
      return call.start(resizeVolume, { vmid, disk, size, digest })
    },
  }),
]
