/**
 * Where the datastore of a storage lies. Storages say it and know nothing of datastores; who opens datastores knows nothing
 * of storages. It holds secrets: it is not for logs, and not for anybody who asks.
 */

/** A folder of this machine, by its path, or elsewhere. */
export type DatastoreAt = string | RemoteDatastore
export type RemoteDatastore = BucketDatastore | ServedDatastore

export interface BucketDatastore {
  readonly kind: 's3'
  readonly bucket: string
  /** Between the bucket and the names of objects; may be empty. */
  readonly prefix: string
  /** `https://s3.example.org`; that of the region when absent. */
  readonly endpoint?: string | undefined
  readonly region?: string | undefined
  /** Absent: they are looked for where other tools of S3 look. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined
  /** A new datastore keeps what backups need for so long, by Object Lock. */
  readonly retainSeconds?: number | undefined
  /** Backups of the node are in this one; the root when empty. */
  readonly namespace: string
}

/** Behind another Hakobune. */
export interface ServedDatastore {
  readonly kind: 'hakobune'
  /** `https://backup.example.org:8017/site` */
  readonly url: string
  readonly token: string
  /** SHA-256 of the server's certificate, in hexadecimal: then nobody has to have signed it. */
  readonly fingerprint?: string | undefined
  readonly namespace: string
}

/** For people, and the same for the same place. */
export function labelOf(at: RemoteDatastore): string {
  if (at.kind === 'hakobune') return at.url
  return `${at.endpoint ?? 's3:/'}/${at.bucket}${at.prefix === '' ? '' : `/${at.prefix}`}`
}
