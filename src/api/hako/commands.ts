/** Our own branch describes itself: what is in it, the commands its CLI offers, and the API in Proxmox VE's shape. */
import { productVersion } from '#base/product.ts'
import { array, object, optional, record, string } from '#base/schema/schema.ts'
import { commandsMeantBy, commandsOf } from '#rest/command.ts'
import { describe } from '#rest/describe.ts'
import { anyone, type Endpoint } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../call.ts'

const branches = [
  'architecture',
  'backup-file',
  'backup-files',
  'backup-options',
  'backups',
  'commands',
  'containers',
  'datastore',
  'datastore-jobs',
  'drills',
  'evidence',
  'evidence-chain',
  'front-ticket',
  'machines',
  'network',
  'node-key',
  'plan-jobs',
  'plans',
  'recovery-key',
  'restore',
  'restore-disk',
  'schema',
  'verify',
  'ways',
]

/** @param endpoints all the others; these stand beside them */
export function selfDescription(endpoints: readonly Endpoint<Call>[]) {
  const commands = commandsOf(endpoints)
  return [
    endpoint({
      method: 'GET',
      path: '/hako',
      description: 'What is below this path.',
      params: {},
      permission: anyone,
      returns: array(object({ name: string() })),
      isOwn: true,
      handle: () => branches.map((name) => ({ name })),
    }),
    endpoint({
      method: 'GET',
      path: '/hako/commands',
      description: 'The commands of the command line, with their options, as this node understands them.',
      params: {
        words: optional(
          string({ maxLength: 256, description: 'A command line: only what it can mean, instead of everything.' }),
        ),
      },
      permission: anyone,
      returns: record(),
      isOwn: true,
      handle: ({ words }, { services }) => ({
        node: services.settings.node,
        version: productVersion,
        commands: words === undefined ? commands : commandsMeantBy(commands, words.split(' ')),
      }),
    }),
    endpoint({
      method: 'GET',
      path: '/hako/schema',
      description: 'Every method this node serves, in the shape of the Proxmox VE API description.',
      params: {},
      permission: anyone,
      returns: array(record()),
      isOwn: true,
      handle: () => describe(endpoints).map((method) => ({ ...method })),
    }),
  ]
}
