/**
 * A datastore that another Hakobune serves (`hako datastore serve`). A type of our own, with the options Proxmox VE has for
 * its backup server where they mean the same: that type speaks another protocol, and to answer to its name would send
 * clients' servers of that kind to us, and us to them.
 */
import { invalid } from '#base/fault.ts'
import { integer, optional, string } from '#base/schema/schema.ts'
import { storagePlugin } from '../plugin.ts'
import { driverElsewhere, elsewhereFeatures, namespaceOption } from './elsewhere.ts'

const defaultPort = 8017

export const hakobune = storagePlugin({
  type: 'hakobune',
  content: ['backup'],
  defaultContent: ['backup'],
  features: elsewhereFeatures,
  config: {
    server: string({ description: 'Host that serves the datastore.', format: 'pve-storage-server', maxLength: 253 }),
    port: optional(
      integer({ description: `Port it listens at; ${defaultPort} when absent.`, minimum: 1, maximum: 65_535 }),
    ),
    datastore: string({
      description: 'Name of the datastore there.',
      pattern: /[a-z0-9][a-z0-9_-]{0,31}/,
      maxLength: 32,
    }),
    password: optional(
      string({
        description: 'Token, as hako datastore token printed it; never shown again.',
        pattern: /[A-Za-z0-9_-]+/,
        maxLength: 256,
        isSecret: true,
      }),
    ),
    fingerprint: optional(
      string({
        description: 'SHA-256 of its certificate; without it somebody the node trusts must have signed that.',
        pattern: /([A-Fa-f0-9]{2}:){31}[A-Fa-f0-9]{2}/,
        maxLength: 95,
      }),
    ),
    namespace: namespaceOption,
  },
  open({ server, port = defaultPort, datastore, fingerprint, namespace = '' }) {
    const url = `https://${server.includes(':') ? `[${server}]` : server}:${port}/${datastore}`
    return driverElsewhere(url, ({ password: token }) => {
      if (token === undefined) throw invalid({ password: 'a token lets the node in there: hako datastore token' })
      return { kind: 'hakobune', url, token, namespace, ...(fingerprint !== undefined && { fingerprint }) }
    })
  },
})
