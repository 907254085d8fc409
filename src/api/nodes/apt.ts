/** `/nodes/{node}/apt`: packages of the machine, and where they come from. */
import { array, boolean, integer, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { nodeName, upid } from '#base/schema/standard.ts'
import { changelog } from '#host/system/packages.ts'
import { refreshPackages } from '#operations/node/refresh-packages.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { packageSources, packageUpgrades, packageVersions } from '#views/packages.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName }
const mayModify = check('Sys.Modify', '/nodes/{node}')
const digest = optional(string({ description: 'Refuse when the files no longer have this SHA-256.', maxLength: 80 }))
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
    handle: () => ['changelog', 'repositories', 'update', 'versions'].map((id) => ({ id })),
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
    handle: (_, { services }) => packageSources(services.packageSources),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/apt/repositories',
    description: 'Switch a repository of packages on or off. Remarks and all other lines of its file stay.',
    proxyTo: 'node',
    params: {
      ...at,
      path: string({ description: 'File the repository is in.', maxLength: 1024 }),
      index: integer({ description: 'Place among the repositories of the file, from 0.', minimum: 0, maximum: 10_000 }),
      enabled: optional(boolean({ description: 'On or off; it stays as it is when absent.' })),
      digest,
    },
    permission: mayModify,
    returns: nothing,
    async handle(params, { services }) {
      const { path, index, enabled } = params
      if (enabled !== undefined) await services.packageSources.setEnabled(path, index, enabled, params.digest)
      return null
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/apt/repositories',
    description: 'Add a repository of the distribution, or switch it on when it is there.',
    proxyTo: 'node',
    params: {
      ...at,
      handle: string({
        description: 'Which, as `standard-repos` names it.',
        pattern: /[a-z][a-z0-9-]*/,
        maxLength: 64,
      }),
      digest,
    },
    permission: mayModify,
    returns: nothing,
    cli: {
      command: ['node', 'add-repository'],
      positional: ['handle'],
      examples: ['node add-repository debian-backports'],
    },
    async handle(params, { services }) {
      await services.packageSources.addStandard(params.handle, params.digest)
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/apt/changelog',
    description: 'What changed in a package.',
    proxyTo: 'node',
    params: {
      ...at,
      name: string({ description: 'Name of the package.', pattern: /[a-z0-9][-+.a-z0-9:]+/, maxLength: 128 }),
      version: optional(
        string({ description: 'Version; the newest known when absent.', pattern: /[A-Za-z0-9.+~:-]+/, maxLength: 128 }),
      ),
    },
    permission: mayModify,
    returns: string({ description: 'The text.' }),
    cli: { command: ['node', 'changelog'], positional: ['name'] },
    handle: ({ name, version }, { services }) => changelog(services.host, name, version),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/apt/update',
    description: 'Fetch the lists of packages anew.',
    proxyTo: 'node',
    params: {
      ...at,
      notify: optional(boolean({ description: 'Taken, and nobody is told: a node sends no mail.', default: false })),
      quiet: optional(boolean({ description: 'Log failures only.', default: false })),
    },
    permission: mayModify,
    returns: upid,
    cli: { command: ['node', 'refresh'] },
    handle({ quiet }, call) {
      call.services.packageSources.requireOwn()
      return call.start(refreshPackages, { quiet })
    },
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
