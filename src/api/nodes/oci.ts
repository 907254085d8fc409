/** Images of container registries: `query-oci-repo-tags`, and `oci-registry-pull` into a storage. */
import { array, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import { registryTags } from '#host/web/skopeo.ts'
import { pullOciImage, pullRequest, registryAccess } from '#operations/storage/pull-image.ts'
import { all, check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

// Each text has one way through these: the repetitions never share a character.
const label = '[a-zA-Z\\d](?:[a-zA-Z\\d-]*[a-zA-Z\\d])?'
const part = '[a-z\\d]+(?:(?:[._]|__|-+)[a-z\\d]+)*'
const repository = `(?:${label}(?:\\.${label})*(?::\\d+)?/)?${part}(?:/${part})*`

export const ociEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/query-oci-repo-tags',
    description: 'Tags a repository of a container registry has. Addresses of the node itself are not asked.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      reference: string({
        description: 'The repository: `docker.io/library/debian`.',
        pattern: new RegExp(repository),
        maxLength: 384,
      }),
    },
    permission: check('Sys.AccessNetwork', '/nodes/{node}'),
    returns: array(string({ description: 'A tag.' })),
    cli: {
      command: ['storage', 'image-tags'],
      positional: ['reference'],
      examples: ['storage image-tags docker.io/library/debian'],
    },
    handle: async ({ reference }, { services: { host, settings }, signal }) =>
      registryTags(host, reference, { ...(await registryAccess(settings)), signal }),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/storage/{storage}/oci-registry-pull',
    description: 'Let the node fetch an image of a container registry as a template of containers, an OCI archive.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      storage: storageId,
      reference: string({
        description: 'The image, with its tag: `docker.io/library/debian:13`.',
        pattern: new RegExp(`${repository}:\\w[\\w.-]{0,127}`),
        maxLength: 512,
      }),
      filename: optional(
        string({
          description: 'Name the file gets; of `debian:13` it is `debian_13.tar`.',
          minLength: 1,
          maxLength: 255,
        }),
      ),
    },
    permission: all(
      check('Datastore.AllocateTemplate', '/storage/{storage}'),
      check('Sys.AccessNetwork', '/nodes/{node}'),
    ),
    returns: upid,
    cli: {
      command: ['storage', 'pull-image'],
      positional: ['storage', 'reference'],
      examples: ['storage pull-image local docker.io/library/debian:13'],
    },
    handle: async (params, { services, start }) => start(pullOciImage, await pullRequest(services.storage, params)),
  }),
]
