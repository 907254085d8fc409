/** A datastore in a bucket of an S3 server: a type of our own, because Proxmox VE has none for that. */
import { invalid } from '#base/fault.ts'
import { integer, optional, string } from '#base/schema/schema.ts'
import { storagePlugin } from '../plugin.ts'
import { driverElsewhere, elsewhereFeatures, namespaceOption } from './elsewhere.ts'

const secondsPerDay = 24 * 60 * 60

export const s3 = storagePlugin({
  type: 's3',
  content: ['backup'],
  defaultContent: ['backup'],
  features: elsewhereFeatures,
  config: {
    bucket: string({ description: 'Bucket of the S3 server.', pattern: /[a-z0-9][a-z0-9._-]{1,62}/, maxLength: 63 }),
    prefix: optional(
      string({
        description: 'Folder in the bucket; the bucket itself when absent.',
        pattern: /[A-Za-z0-9][A-Za-z0-9._-]*(?:\/[A-Za-z0-9][A-Za-z0-9._-]*)*/,
        maxLength: 200,
      }),
    ),
    endpoint: optional(
      string({
        description: 'Address of the S3 server; that of the region when absent.',
        pattern: /https?:\/\/[A-Za-z0-9.:[\]-]+\/?/,
        maxLength: 256,
      }),
    ),
    region: optional(
      string({ description: 'Region; us-east-1 when absent.', pattern: /[A-Za-z0-9-]{1,64}/, maxLength: 64 }),
    ),
    'access-key': optional(
      string({
        description: 'Access key; without one the credentials are looked for where other S3 tools look.',
        pattern: /[\x21-\x7e]+/,
        maxLength: 256,
      }),
    ),
    'secret-key': optional(
      string({
        description: 'Secret that belongs to the access key; never shown again.',
        pattern: /[\x20-\x7e]+/,
        maxLength: 256,
        isSecret: true,
      }),
    ),
    'retain-days': optional(
      integer({
        description:
          'Days for which nobody can remove a backup, by Object Lock of the bucket; set when a datastore is made.',
        minimum: 1,
        maximum: 36_500,
      }),
    ),
    namespace: namespaceOption,
  },
  open(options) {
    const { bucket, prefix = '', endpoint, region, namespace = '' } = options
    const [accessKeyId, days] = [options['access-key'], options['retain-days']]
    const where = `${endpoint?.replace(/\/$/, '') ?? region ?? 's3'}/${bucket}/${prefix}`
    return driverElsewhere(where, ({ 'secret-key': secretAccessKey }) => {
      if ((accessKeyId === undefined) !== (secretAccessKey === undefined)) {
        const lacking = accessKeyId === undefined ? 'access-key' : 'secret-key'
        throw invalid({ [lacking]: 'an access key and its secret go together' })
      }
      return {
        kind: 's3',
        bucket,
        prefix,
        namespace,
        ...(endpoint !== undefined && { endpoint }),
        ...(region !== undefined && { region }),
        ...(accessKeyId !== undefined &&
          secretAccessKey !== undefined && { credentials: { accessKeyId, secretAccessKey } }),
        ...(days !== undefined && { retainSeconds: days * secondsPerDay }),
      }
    })
  },
})
