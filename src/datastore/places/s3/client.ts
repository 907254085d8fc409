/**
 * The client library, set up: its retries are off, because a retry has to know what was asked; its checksums too, because
 * names prove content already and not every server knows them. It is loaded when a place is in an object store, and only
 * then.
 */
import { readFile, stat } from 'node:fs/promises'
import { Agent as HttpsAgent } from 'node:https'
import type * as s3 from '@aws-sdk/client-s3'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { ServerClock } from '../server-clock.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici.
const { Agent: HttpAgent } = process.getBuiltinModule('node:http')

export interface S3Options {
  readonly bucket: string
  /** Between the bucket and the names of objects; may be empty. */
  readonly prefix: string
  /** `https://s3.example.org`; that of the region when absent. */
  readonly endpoint?: string | undefined
  readonly region?: string | undefined
  /** PEM of the authorities the server's certificate may be signed by, in the place of the machine's. */
  readonly ca?: string | undefined
  /** As other tools of S3 have it; without it they are looked for where those look. */
  readonly credentialsFile?: string | undefined
  /** In the place of such a file. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined
  /** Objects a server lists at once. */
  readonly pageObjects?: number | undefined
  /** Silence after which a server counts as gone. */
  readonly idleMs?: number | undefined
  /** After which a server counts as gone that does not take us in. */
  readonly connectMs?: number | undefined
}

const atOnce = 16
const connectMs = 10_000
const idleMs = 60_000
const credentialsMaximumBytes = 64 * 1024
const silent = () => {}
const regionShape = /^[a-z0-9-]{1,64}$/i

export type S3Library = typeof s3

export interface S3Reach {
  readonly client: s3.S3Client
  readonly library: S3Library
  /** For people. */
  readonly server: string
  readonly time: ServerClock
  /** Whether its last answer was a page for people. */
  readonly said: { isPage: boolean }
}

/** @throws Fault `invalid`, and as the credentials file */
export async function reachS3(options: S3Options, clock: Clock): Promise<S3Reach> {
  const { endpoint, region = 'us-east-1', ca, credentialsFile } = options
  if (!regionShape.test(region)) throw new Fault('invalid', `'${region}' cannot be a region`)
  const url = endpoint === undefined ? undefined : endpointOf(endpoint)
  const inFile = credentialsFile === undefined ? undefined : await credentialsIn(credentialsFile)
  const credentials = options.credentials ?? inFile
  const library = await import('@aws-sdk/client-s3')
  const client = new library.S3Client({
    region,
    // A bucket is a path: most servers beside Amazon's have no name for each.
    forcePathStyle: url !== undefined,
    maxAttempts: 1,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // It would write to the terminal what we say in a fault.
    logger: { trace: silent, debug: silent, info: silent, warn: silent, error: silent },
    requestHandler: {
      connectionTimeout: options.connectMs ?? connectMs,
      socketTimeout: options.idleMs ?? idleMs,
      httpAgent: new HttpAgent({ keepAlive: true, maxSockets: atOnce }),
      httpsAgent: new HttpsAgent({
        keepAlive: true,
        maxSockets: atOnce,
        minVersion: 'TLSv1.2',
        ...(ca !== undefined && { ca }),
      }),
    },
    ...(url && { endpoint: url.href }),
    ...(credentials && { credentials }),
  })
  const said: S3Reach['said'] = { isPage: false }
  const time = new ServerClock(clock)
  client.middlewareStack.add(
    (next) => async (args) => {
      const answer = await next(args)
      const { headers = {} } = answer.response as { readonly headers?: Readonly<Record<string, string>> }
      said.isPage = headers['content-type']?.startsWith('text/html') === true
      time.hear(Date.parse(headers.date ?? ''))
      return answer
    },
    { step: 'deserialize', name: 'timeOfServer', priority: 'low' },
  )
  return { client, library, server: url?.origin ?? `S3 in ${region}`, time, said }
}

function endpointOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isPlain = url && (url.protocol === 'https:' || url.protocol === 'http:') && url.username === ''
  if (url && isPlain && url.search === '' && url.hash === '') return url
  throw new Fault('invalid', `endpoint: '${text}' is no address of a server`, {
    remedy: 'It is one such as https://s3.example.org.',
  })
}

/** @throws Fault `denied` when others may read the file, `invalid` when it holds none */
async function credentialsIn(path: string): Promise<{ accessKeyId: string; secretAccessKey: string }> {
  try {
    const { mode, size } = await stat(path)
    if ((mode & 0o077) !== 0) {
      throw new Fault('denied', `'${path}' holds a secret, and others may read it`, { remedy: `chmod 600 ${path}` })
    }
    if (size > credentialsMaximumBytes) throw new Fault('too-large', `'${path}' is too large to hold credentials`)
    const text = await readFile(path, 'utf8')
    const valueOf = (name: string) => new RegExp(`^\\s*${name}\\s*=\\s*(.+?)\\s*$`, 'm').exec(text)?.[1]
    const [id, secret, token] = ['aws_access_key_id', 'aws_secret_access_key', 'aws_session_token'].map(valueOf)
    if (id !== undefined && secret !== undefined) {
      return { accessKeyId: id, secretAccessKey: secret, ...(token !== undefined && { sessionToken: token }) }
    }
    throw new Fault('invalid', `'${path}' holds no credentials`, {
      remedy: 'It has two lines: aws_access_key_id = …, and aws_secret_access_key = ….',
    })
  } catch (cause) {
    throw asFileFault(cause, path)
  }
}
