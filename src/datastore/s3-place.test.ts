/** S3, on a real server: radosgw of the distribution. */
import { after } from 'node:test'
import { objectStore } from '../../test/fixtures/object-store.ts'
import { placeConformance } from './conformance.ts'
import type { S3PlaceOptions } from './s3-place.ts'

const server = await objectStore()
after(() => server[Symbol.asyncDispose]())

async function inBucket(options: { readonly lock?: boolean } = {}): Promise<{ readonly s3: S3PlaceOptions }> {
  const { endpoint, credentialsFile } = server
  return {
    s3: { bucket: await server.bucket(options), prefix: 'site/backups', endpoint, credentialsFile, pageObjects: 50 },
  }
}

placeConformance('a bucket', () => inBucket())
placeConformance('a bucket with versions', () => inBucket({ lock: true }))
