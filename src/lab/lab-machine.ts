/** The lab's virtual machine: a small Linux with an agent and a web server. */
import { ownBridge } from '#settings.ts'
import { fieldsOf } from './api.ts'
import { ensureGuestImage } from './guest-image.ts'
import { type LabGuest, orNotYet, pathOf } from './lab-guest.ts'

const vmid = 100
const knownFile = '/www/known'

export const labMachine: LabGuest = {
  vmid,
  kind: 'qemu',
  name: `VM ${vmid}`,
  page: 'Hakobune lab guest',
  knownFile,
  says: { start: 'startMachine', known: 'knownByAgent' },
  async prepare({ settings, host, terminal }) {
    const image = await ensureGuestImage({
      host,
      cacheDir: settings.cacheDir,
      signal: terminal.signal,
      say: (line) => terminal.show(`  … ${line}`, true),
    })
    return image.path
  },
  create: ({ api, settings }, image) =>
    api.post(`/nodes/${settings.node}/qemu`, {
      vmid,
      name: 'lab',
      memory: 192,
      cores: 1,
      agent: '1',
      serial0: 'socket',
      scsihw: 'virtio-scsi-pci',
      scsi0: `local:0,import-from=${image}`,
      net0: `virtio,bridge=${ownBridge(settings)}`,
      boot: 'order=scsi0',
      description: 'Made by hako lab.',
    }),
  answers: async (lab) =>
    (await orNotYet(async () => {
      await lab.api.post(pathOf(lab, labMachine, 'agent/ping'))
      return true
    })) === true,
  async address(lab) {
    const { result } = fieldsOf(await lab.api.get(pathOf(lab, labMachine, 'agent/network-get-interfaces')))
    return addressIn(result)
  },
  async write(lab, content) {
    await lab.api.post(pathOf(lab, labMachine, 'agent/file-write'), { file: knownFile, content })
  },
}

/** The first IPv4 address that is neither loopback nor self-assigned, in a list of network cards. */
export function addressIn(interfaces: unknown): string | undefined {
  const list = Array.isArray(interfaces) ? interfaces.map(fieldsOf) : []
  return list
    .flatMap((card) => (Array.isArray(card['ip-addresses']) ? card['ip-addresses'].map(fieldsOf) : []))
    .filter((address) => /^(ipv4|inet)$/.test(String(address['ip-address-type'])))
    .map((address) => String(address['ip-address']))
    .find((address) => !address.startsWith('127.') && !address.startsWith('169.254.'))
}
