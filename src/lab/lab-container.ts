/** The lab's container: a small Debian with systemd and a web server. */
import { Fault } from '#base/fault.ts'
import { ownBridge } from '#settings.ts'
import { fieldsOf } from './api.ts'
import { ensureContainerTemplate } from './container-template.ts'
import { type Lab, type LabGuest, orNotYet, pathOf } from './lab-guest.ts'
import { addressIn } from './lab-machine.ts'

const vmid = 101
const knownFile = '/srv/web/known'

export const labContainer: LabGuest = {
  vmid,
  kind: 'lxc',
  name: `CT ${vmid}`,
  page: 'comes out of a container',
  knownFile,
  says: { start: 'startContainer', known: 'knownInside' },
  prepare: ({ settings, host, terminal }) =>
    ensureContainerTemplate({ host, cacheDir: settings.cacheDir, signal: terminal.signal }),
  create: ({ api, settings }, template) =>
    api.post(`/nodes/${settings.node}/lxc`, {
      vmid,
      ostemplate: template,
      hostname: 'lab-ct',
      memory: 128,
      swap: 0,
      cores: 1,
      rootfs: 'local:0',
      net0: `name=eth0,bridge=${ownBridge(settings)},ip=dhcp`,
      description: 'Made by hako lab.',
    }),
  answers: async (lab) => (await orNotYet(() => inside(lab, ['/bin/true']))) !== undefined,
  address: async (lab) => addressIn(await lab.api.get(pathOf(lab, labContainer, 'interfaces'))),
  async write(lab, content) {
    await inside(lab, ['/bin/sh', '-c', `cat > ${knownFile}`], content)
  },
}

/** @throws Fault `failed` with what the command said */
async function inside({ api, settings }: Lab, command: readonly string[], input?: string): Promise<string> {
  const given = input === undefined ? {} : { 'input-data': input }
  const ended = fieldsOf(await api.post(`/hako/containers/${settings.node}/${vmid}/exec`, { command, ...given }))
  if (ended.exitcode === 0) return String(ended['out-data'])
  throw new Fault('failed', `${command[0]} in CT ${vmid}: ${String(ended['err-data']).trim()}`)
}
