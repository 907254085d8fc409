/** What somebody is told who is not led to their bucket: by servers that answer as real ones do, or are none. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { freePort } from '../../../../test/own-names.ts'
import { deps } from '../../../../test/fixtures/datastore.ts'
import { S3Place } from './place.ts'

/** @returns what opening a place there comes to: kind, message and remedy */
async function told(endpoint: string): Promise<string> {
  const credentials = { accessKeyId: 'one', secretAccessKey: 'two' }
  const options = { bucket: 'backups', prefix: '', endpoint, credentials, attempts: 2, firstWaitMs: 1 }
  try {
    await using _place = await S3Place.open(options, deps)
    return 'nothing'
  } catch (fault) {
    if (!isFault(fault)) throw fault
    return `${fault.kind}: ${fault.message}. ${fault.remedy ?? ''}`
  }
}

async function toldBy(status: number, type: string, text: string): Promise<string> {
  const server = createServer((_, answer) => answer.writeHead(status, { 'Content-Type': type }).end(text))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    return await told(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

const refusals: readonly (readonly [number, string, RegExp])[] = [
  [
    403,
    'InvalidAccessKeyId',
    /^denied: '\S+' refuses access: it does not know the access key .*\. Check the credentials/,
  ],
  [403, 'SignatureDoesNotMatch', /^denied: '\S+' refuses access: the secret key is not that of the access key/],
  [400, 'ExpiredToken', /^denied: .*the session of the credentials is over/],
  [403, 'AccessDenied', /^denied: '\S+' refuses access to the versioning of bucket 'backups': AccessDenied\. Check/],
  [
    403,
    'RequestTimeTooSkewed',
    /^failed: the clock of this machine and that of '\S+' are too far apart\. Set the clock/,
  ],
  [404, 'NoSuchBucket', /^missing: bucket 'backups' does not exist/],
  [
    503,
    'SlowDown',
    /^unavailable: '\S+' asks to be asked less often: .*SlowDown\) \(tried 2 times\)\. Try again later.*--bwlimit/,
  ],
  [503, 'ServiceUnavailable', /^unavailable: '\S+' answers 503 \(ServiceUnavailable\) \(tried 2 times\)/],
  [301, 'PermanentRedirect', /^invalid: bucket 'backups' belongs to another region\. .*--region/],
]

test('what a server refuses is said in words that lead on', async () => {
  for (const [status, code, said] of refusals) {
    assert.match(await toldBy(status, 'application/xml', `<Error><Code>${code}</Code></Error>`), said, code)
  }
})

test('what is no S3 server is said to be none, and where nothing is that is said', async () => {
  const page = '<html><body>Welcome</body></html>'
  for (const status of [200, 404]) assert.match(await toldBy(status, 'text/html', page), /^invalid: what answers at '\S+' is no S3 server\. Check --endpoint/) // prettier-ignore
  // Of a proxy before a server that is away for a moment.
  assert.match(await toldBy(502, 'text/html', page), /^unavailable: '\S+' answers 502/)
  const port = await freePort()
  assert.match(await told(`http://127.0.0.1:${port}`), /^unavailable: could not reach \S+ ECONNREFUSED \(tried 2 times\)\. Nothing listens there/) // prettier-ignore
  const plain = createServer(() => {}).listen(port, '127.0.0.1')
  await once(plain, 'listening')
  assert.match(
    await told(`https://127.0.0.1:${port}`),
    /^invalid: what answers at \S+ speaks no TLS\. Check --endpoint/,
  )
  plain.closeAllConnections()
  plain.close()
})
