/** `/nodes/{node}/storage/{storage}/import-metadata`: what a file to import would become. */
import { nodeName, storageId, volumeId } from '#base/schema/standard.ts'
import { anyone } from '#rest/endpoint.ts'
import { volumeAt } from '#storage/volume.ts'
import { importMetadata, metadataOf } from '#views/import-metadata.ts'
import { endpoint } from '../../call.ts'
import { readsVolume } from './content.ts'

export const importEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/import-metadata',
    description: 'What an OVA or OVF describes, as options of a new guest.',
    proxyTo: 'node',
    params: { node: nodeName, storage: storageId, volume: volumeId },
    permission: anyone,
    alsoNeeds: readsVolume,
    returns: importMetadata,
    cli: {
      command: ['storage', 'import-metadata'],
      positional: ['storage', 'volume'],
      examples: ['storage import-metadata local import/appliance.ova -o yaml'],
    },
    handle: ({ storage, volume }, { services }) => metadataOf(services.storage, volumeAt(storage, volume)),
  }),
]
