/** `/nodes/{node}/aplinfo`: templates of containers, from the configured index. */
import { array, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import { downloadFile, downloadRequest } from '#operations/storage/download.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { applianceNamed, appliances } from '#storage/appliances.ts'
import { endpoint } from '../call.ts'

const text = (description: string) => optional(string({ description }))

export const applianceEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/aplinfo',
    description: 'Templates of containers that can be fetched. None, where no index of them is configured.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: anyone,
    returns: array(
      object({
        template: string({ description: 'Name of its file.' }),
        package: text('Name of the system in it.'),
        version: text('Its version.'),
        type: text('Kind of guest.'),
        os: text('Its operating system.'),
        section: text('Group it belongs to.'),
        architecture: text('Processor it is for.'),
        location: text('Where its file is.'),
        sha512sum: text('Checksum of its file.'),
        headline: text('What it is, in a line.'),
        description: text('What it is.'),
        infopage: text('More about it.'),
        maintainer: text('Who made it.'),
      }),
    ),
    cli: {
      command: ['storage', 'templates'],
      columns: ['section', 'template', 'headline'],
      id: 'template',
      examples: ['storage templates', 'storage templates -o id'],
    },
    async handle(_, { services, signal }) {
      return (await appliances(services, signal)).map(({ template, url, sha512, facts }) => {
        const { package: name, version, type, os, section, architecture, infopage, maintainer, description } = facts
        const about = { package: name, version, type, os, section, architecture, infopage, maintainer, description }
        const headline = description?.split('\n')[0]
        return { template, ...about, location: url, sha512sum: sha512, headline }
      })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/aplinfo',
    description: 'Fetch a template of containers into a storage.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      storage: storageId,
      template: string({ description: 'Name of its file, as the list says.', minLength: 1, maxLength: 255 }),
    },
    permission: check('Datastore.AllocateTemplate', '/storage/{storage}'),
    returns: upid,
    cli: {
      command: ['storage', 'fetch-template'],
      positional: ['storage', 'template'],
      examples: ['storage fetch-template local debian-13-standard_13.1-2_amd64.tar.zst'],
    },
    async handle({ storage, template }, { services, start, signal }) {
      const { url, sha512: checksum } = await applianceNamed(services, template, signal)
      const file = { storage, content: 'vztmpl', filename: template, url, checksum } as const
      return start(downloadFile, await downloadRequest(services.storage, { ...file, 'checksum-algorithm': 'sha512' }))
    },
  }),
]
