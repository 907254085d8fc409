/** `/nodes/{node}/qemu/{vmid}/agent`: plain commands of the guest agent, each one value of a table. */
import { asVmid } from '#base/ids.ts'
import { array, boolean, enumOf, object, optional, record, string } from '#base/schema/schema.ts'
import type { Schema } from '#base/schema/schema.ts'
import type { AgentClient } from '#host/qemu/guest-agent.ts'
import { anyone, checkAny } from '#rest/endpoint.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt } from './at.ts'

const on = '/vms/{vmid}'
const unrestricted = 'VM.GuestAgent.Unrestricted'
const mayLook = ['VM.GuestAgent.Audit', unrestricted]
const mayFreeze = ['VM.GuestAgent.FileSystemMgmt', unrestricted]
const mayPower = ['VM.PowerMgmt', unrestricted]

interface PlainCommand {
  readonly method: 'GET' | 'POST'
  readonly privileges: readonly string[]
  readonly description: string
  /** The guest stops before its agent could answer. */
  readonly isSilent?: true
}

const look = (description: string): PlainCommand => ({ method: 'GET', privileges: mayLook, description })
const manage = (description: string): PlainCommand => ({ method: 'POST', privileges: mayFreeze, description })
const power = (description: string): PlainCommand => ({
  method: 'POST',
  privileges: mayPower,
  description,
  isSilent: true,
})

/** The agent's own name of each is `guest-` and this. */
const commands = {
  'fsfreeze-freeze': manage('Freeze the guest’s file systems.'),
  'fsfreeze-status': {
    ...manage('Whether they are frozen.'),
    privileges: [...mayLook, 'VM.GuestAgent.FileSystemMgmt'],
  },
  'fsfreeze-thaw': manage('Thaw the guest’s file systems.'),
  fstrim: manage('Give unused blocks back.'),
  'get-fsinfo': look('Mounted file systems.'),
  'get-host-name': look('The guest’s name for itself.'),
  'get-memory-block-info': look('Size of its memory blocks.'),
  'get-memory-blocks': look('Its memory blocks.'),
  'get-osinfo': look('Operating system.'),
  'get-time': look('Its clock, in nanoseconds since 1970.'),
  'get-timezone': look('Its time zone.'),
  'get-users': look('Users logged in.'),
  'get-vcpus': look('Its processors.'),
  info: look('What the agent can do.'),
  'network-get-interfaces': look('Network interfaces and their addresses.'),
  ping: { method: 'POST', privileges: mayLook, description: 'Whether the agent answers.' },
  shutdown: power('Shut the guest down.'),
  'suspend-disk': power('Hibernate the guest.'),
  'suspend-hybrid': power('Hibernate the guest and keep its memory.'),
  'suspend-ram': power('Put the guest to sleep.'),
} as const satisfies Readonly<Record<string, PlainCommand>>

type CommandName = keyof typeof commands
const names = Object.keys(commands) as CommandName[]
/** Commands with parameters of their own. */
const others = ['exec', 'exec-status', 'file-read', 'file-write', 'set-user-password']

/** What the agent returned, under the key clients look for. */
const result: Schema<{ result: unknown }> = {
  type: 'object',
  additionalProperties: true,
  description: 'Answer of the agent.',
}

const cliOf: Partial<Record<CommandName, string>> = {
  ping: 'ping',
  'get-fsinfo': 'filesystems',
  'network-get-interfaces': 'interfaces',
  'get-osinfo': 'os',
  'fsfreeze-freeze': 'freeze',
  'fsfreeze-thaw': 'thaw',
  fstrim: 'trim',
}

export const agentEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/agent',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: guestAt,
    permission: anyone,
    allowsExtra: true,
    returns: array(object({ name: string() })),
    handle: () => [...names, ...others].toSorted().map((name) => ({ name })),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/agent',
    description: 'Run a plain command of the guest agent.',
    proxyTo: 'node',
    params: { ...guestAt, command: enumOf(names, { description: 'The command.' }) },
    permission: checkAny([unrestricted], on),
    returns: result,
    handle: (params, call) => run(params.command, params.vmid, call),
  }),
  ...names.map((name) => {
    const { method, privileges, description }: PlainCommand = commands[name]
    const command = cliOf[name]
    return endpoint({
      method,
      path: `/nodes/{node}/qemu/{vmid}/agent/${name}`,
      description,
      proxyTo: 'node',
      params: guestAt,
      permission: checkAny(privileges, on),
      returns: result,
      ...(command === undefined ? {} : { cli: { command: ['vm', 'agent', command], positional: ['vmid'] } as const }),
      handle: (params, call) => run(name, params.vmid, call),
    })
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/agent/set-user-password',
    description: 'Set the password of a user in the guest.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      username: string({ description: 'User in the guest.', minLength: 1, maxLength: 256 }),
      password: { ...string({ description: 'New password.', minLength: 5, maxLength: 1024 }), isSecret: true },
      crypted: optional(boolean({ description: 'It is a hash already.', default: false })),
    },
    permission: checkAny([unrestricted], on),
    returns: record({ description: 'Answer of the agent.' }),
    handle: ({ vmid, username, password, crypted = false }, call) =>
      withAgent(vmid, call, async (agent) => {
        const secret = Buffer.from(password, 'utf8').toString('base64')
        return { result: await agent.execute('guest-set-user-password', { username, password: secret, crypted }) }
      }),
  }),
]

async function run(name: CommandName, vmid: number, call: Call): Promise<{ result: unknown }> {
  const { isSilent }: PlainCommand = commands[name]
  return withAgent(vmid, call, async (agent) => {
    if (isSilent !== true) return { result: await agent.execute(`guest-${name}`, {}, { signal: call.signal }) }
    await agent.tell(`guest-${name}`)
    return { result: {} }
  })
}

/** A connection for one call; a missing guest is told apart from one whose agent does not answer. */
export async function withAgent<T>(
  vmid: number,
  { services }: Call,
  act: (agent: AgentClient) => Promise<T>,
): Promise<T> {
  const id = asVmid(vmid)
  await services.guests.config(id)
  await using agent = await services.guests.agent(id)
  return await act(agent)
}
