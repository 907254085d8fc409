/** `/cluster/acme/plugins`: how names are proven to ACME servers. */
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { type AcmePlugin, digestOf, dnsInterfaces } from '#cluster/acme/plugins.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const mayModify = check('Sys.Modify', '/')
const id = string({ description: 'Name of the plugin.', format: 'pve-configid', maxLength: 64 })
const type = enumOf(['dns', 'standalone'], { description: 'A record in the name server, or a port of the node.' })
const options = {
  api: optional(enumOf(dnsInterfaces, { description: 'How the name server takes changes.' })),
  data: optional(
    string({
      description: 'Settings for that, as base64 of lines NAME=value.',
      pattern: /[A-Za-z0-9+/=\s_-]*/,
      maxLength: 65_536,
    }),
  ),
  disable: optional(boolean({ description: 'Leave it alone.' })),
  nodes: optional(
    string({ description: 'Nodes it is for; all when absent.', format: 'pve-node-list', maxLength: 4096 }),
  ),
  'validation-delay': optional(
    integer({
      description: 'Seconds between a record and the question for it.',
      minimum: 0,
      maximum: 172_800,
      default: 30,
    }),
  ),
}
const item = object({ plugin: id, type, ...options, digest: string({ description: 'SHA-1 of the settings.' }) })
const wire = (plugin: string, value: AcmePlugin) => ({ plugin, ...value, digest: digestOf(value) })

export const acmePluginEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/acme/plugins',
    description: 'Plugins that prove names.',
    params: { type: optional(type) },
    permission: mayModify,
    returns: array(item),
    cli: { command: ['acme', 'plugin', 'list'], columns: ['plugin', 'type', 'api', 'disable'], id: 'plugin' },
    async handle({ type: wanted }, { services }) {
      const all = await services.acmePlugins.list()
      return all
        .filter(({ value }) => wanted === undefined || value.type === wanted)
        .map((one) => wire(one.plugin, one.value))
    },
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/acme/plugins',
    description: 'Add a plugin that proves names.',
    params: { id, type, ...options },
    permission: mayModify,
    returns: nothing,
    cli: { command: ['acme', 'plugin', 'add'], positional: ['type', 'id'] },
    async handle({ id: name, ...plugin }, { services }) {
      await services.acmePlugins.create(name, plugin)
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/acme/plugins/{id}',
    description: 'A plugin that proves names.',
    params: { id },
    permission: mayModify,
    returns: item,
    cli: { command: ['acme', 'plugin', 'show'], positional: ['id'] },
    handle: async ({ id: name }, { services }) => wire(name, await services.acmePlugins.get(name)),
  }),
  endpoint({
    method: 'PUT',
    path: '/cluster/acme/plugins/{id}',
    description: 'Change a plugin that proves names.',
    params: {
      id,
      ...options,
      delete: optional(
        string({ description: 'Settings to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
      digest: optional(string({ description: 'Refuse when the settings no longer have this SHA-1.', maxLength: 64 })),
    },
    permission: mayModify,
    returns: nothing,
    cli: { command: ['acme', 'plugin', 'set'], positional: ['id'] },
    async handle({ id: name, delete: list = '', digest, ...set }, { services }) {
      await services.acmePlugins.update(name, { set, remove: splitList(list), digest })
      return null
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/cluster/acme/plugins/{id}',
    description: 'Remove a plugin that proves names.',
    params: { id },
    permission: mayModify,
    returns: nothing,
    cli: { command: ['acme', 'plugin', 'remove'], positional: ['id'], destroys: 'id' },
    async handle({ id: name }, { services }) {
      await services.acmePlugins.delete(name)
      return null
    },
  }),
]
