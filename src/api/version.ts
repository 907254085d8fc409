/** `/version`: what clients read first, many to find out whether their credentials are good. */
import { productVersion } from '#base/product.ts'
import { object, string } from '#base/schema/schema.ts'
import { apiRelease, apiVersion, buildId } from '#cluster/version.ts'
import { anyone } from '#rest/endpoint.ts'
import { endpoint } from './call.ts'

export const versionReply = object({
  version: string({ description: 'Version of Proxmox VE whose API this speaks.' }),
  release: string({ description: 'Its release.' }),
  repoid: string({ description: 'Names the build.' }),
  hakobune: string({ description: 'Version of Hakobune.' }),
})

export const versionNow = { version: apiVersion, release: apiRelease, repoid: buildId, hakobune: productVersion }

export const versionEndpoints = [
  endpoint({
    method: 'GET',
    path: '/version',
    description: 'Version of the API and of the product.',
    params: {},
    permission: anyone,
    returns: versionReply,
    cli: { command: ['version'] },
    isKept: true,
    handle: () => versionNow,
  }),
]
