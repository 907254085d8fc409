/** `/nodes/{node}/services`: programs of the machine that systemd keeps. */
import { Fault } from '#base/fault.ts'
import { array, enumOf, object, string, type Static } from '#base/schema/schema.ts'
import { nodeName, upid } from '#base/schema/standard.ts'
import { requireWholeMachine } from '#cluster/whole-machine.ts'
import type { Host } from '#host/host.ts'
import { isSystemdRunning, unitStates } from '#host/system/systemd.ts'
import { reloadService, restartService, startService, stopService } from '#operations/node/service.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

/** Names of the API, with the unit that does that work here. */
const units = {
  chrony: 'chrony',
  corosync: 'corosync',
  cron: 'cron',
  ksmtuned: 'ksmtuned',
  lxcfs: 'lxcfs',
  postfix: 'postfix@-',
  'proxmox-firewall': 'hakobune',
  'pve-cluster': 'hakobune',
  'pve-firewall': 'hakobune',
  'pve-ha-crm': 'hakobune',
  'pve-ha-lrm': 'hakobune',
  'pve-lxc-syscalld': 'hakobune',
  pvedaemon: 'hakobune',
  'pvefw-logger': 'hakobune',
  pveproxy: 'hakobune',
  pvescheduler: 'hakobune',
  pvestatd: 'hakobune',
  qmeventd: 'hakobune',
  spiceproxy: 'hakobune',
  sshd: 'ssh',
  syslog: 'rsyslog',
  'systemd-journald': 'systemd-journald',
  'systemd-timesyncd': 'systemd-timesyncd',
} as const
type ServiceName = keyof typeof units
const names = Object.keys(units) as ServiceName[]

const state = object({
  service: string({ description: 'Name.' }),
  name: string({ description: 'Name of the unit.' }),
  desc: string({ description: 'What it is.' }),
  state: string({ description: 'State in the words of systemd: running, exited, dead, …' }),
  'active-state': string({ description: 'active, inactive, failed, …' }),
  'unit-state': string({ description: 'enabled, disabled, not-found, …' }),
})
type State = Static<typeof state>

const mayAudit = check('Sys.Audit', '/nodes/{node}')
const mayModify = check('Sys.Modify', '/nodes/{node}')
const at = { node: nodeName, service: enumOf(names, { description: 'Name of the service.' }) }

async function statesOf(host: Host, services: readonly ServiceName[]): Promise<State[]> {
  const unit = (service: ServiceName) => `${units[service]}.service`
  if (!(await isSystemdRunning())) return services.map((service) => unknownState(service, unit(service)))
  const states = await unitStates(host, services.map(unit))
  return services.map((service, index) => {
    const found = states[index]
    if (!found) return unknownState(service, unit(service))
    const { description, activeState, subState, fileState } = found
    return {
      service,
      name: units[service],
      desc: description,
      state: subState,
      'active-state': activeState,
      'unit-state': fileState,
    }
  })
}

/** Nobody can say without systemd. */
function unknownState(service: ServiceName, unit: string): State {
  const unknown = { state: 'unknown', 'active-state': 'unknown', 'unit-state': 'unknown' }
  return { service, name: units[service], desc: unit, ...unknown }
}

const acts = [
  ['start', startService, 'Start a service.'],
  ['stop', stopService, 'Stop a service.'],
  ['restart', restartService, 'Stop a service and start it again.'],
  ['reload', reloadService, 'Let a service read its configuration again.'],
] as const

export const serviceEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/services',
    description: 'Services of a node with their state.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: mayAudit,
    returns: array(state),
    cli: {
      command: ['node', 'services'],
      positional: ['node'],
      columns: ['service', 'name', 'state', 'unit-state', 'desc'],
      id: 'service',
    },
    handle: (_, { services }) => statesOf(services.host, names),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/services/{service}',
    description: 'What there is to ask of a service and to do to it.',
    params: at,
    permission: mayAudit,
    returns: array(object({ subdir: string() })),
    handle: () => ['state', ...acts.map(([name]) => name)].map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/services/{service}/state',
    description: 'State of a service.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: state,
    handle: async ({ service }, { services }) =>
      (await statesOf(services.host, [service]))[0] ?? unknownState(service, units[service]),
  }),
  ...acts.map(([name, operation, description]) =>
    endpoint({
      method: 'POST',
      path: `/nodes/{node}/services/{service}/${name}`,
      description,
      proxyTo: 'node',
      params: at,
      permission: mayModify,
      returns: upid,
      handle({ service }, call) {
        requireWholeMachine(call.services.settings, `the service '${service}'`)
        const unit = units[service]
        if (name === 'stop' && unit === 'hakobune') {
          throw new Fault('conflict', `the service '${service}' answers this very call and cannot be stopped by it`)
        }
        return call.start(operation, { service, unit: `${unit}.service` })
      },
    }),
  ),
]
