/** `/nodes/{node}/apt`: packages of the machine. Read only. */
import { array, object, optional, record, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { packageSources, packageUpgrades, packageVersions } from '#views/packages.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName }
const word = (description: string) => string({ description })
const facts = {
  Package: word('Name.'),
  Version: word('Version.'),
  OldVersion: optional(word('Version that is installed.')),
  Title: word('What it is, in a line.'),
  Description: word('What it is.'),
  Origin: word('Who makes it.'),
  Section: word('Section.'),
  Priority: word('Priority.'),
  Arch: word('Architecture.'),
}

export const aptEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/apt',
    description: 'What there is to ask about packages.',
    params: at,
    permission: anyone,
    returns: array(object({ id: word('Name.') })),
    handle: () => ['repositories', 'update', 'versions'].map((id) => ({ id })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/apt/repositories',
    description: 'Where packages come from.',
    proxyTo: 'node',
    params: at,
    permission: check('Sys.Audit', '/nodes/{node}'),
    returns: object({
      digest: word('SHA-256 of all the files.'),
      files: array(record({ description: 'A file with its repositories.' })),
      errors: array(record({ description: 'A file that cannot be read.' })),
      infos: array(record({ description: 'A remark about a repository.' })),
      'standard-repos': array(record({ description: 'A repository one may add.' })),
    }),
    handle: () => packageSources(),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/apt/update',
    description: 'Packages that could be newer, by the lists as they were last fetched.',
    proxyTo: 'node',
    params: at,
    permission: check('Sys.Modify', '/nodes/{node}'),
    returns: array(object(facts)),
    cli: {
      command: ['node', 'updates'],
      positional: ['node'],
      columns: ['Package', 'OldVersion', 'Version', 'Origin'],
      id: 'Package',
    },
    handle: (_, { services }) => packageUpgrades(services.host),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/apt/versions',
    description: 'Versions of the packages a node is made of.',
    proxyTo: 'node',
    params: at,
    permission: check('Sys.Audit', '/nodes/{node}'),
    returns: array(
      object({
        ...facts,
        CurrentState: word('Whether it is installed.'),
        RunningKernel: optional(word('Kernel that runs.')),
        ManagerVersion: optional(word('Version of the platform.')),
      }),
    ),
    cli: {
      command: ['node', 'versions'],
      positional: ['node'],
      columns: ['Package', 'Version', 'Title'],
      id: 'Package',
    },
    handle: (_, { services }) => packageVersions(services.host, services.node.kernel().release),
  }),
]
