/** What an ACME server says of itself before anybody has an account there. */
import { Agent, get as getTls } from 'node:https'
import { KiB } from '#base/bytes.ts'
import { Fault, messageOf } from '#base/fault.ts'
import { trusted, trusting } from '#host/web/trusted.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici.
const { get } = process.getBuiltinModule('node:http')

export const directories = [
  { name: "Let's Encrypt V2", url: 'https://acme-v02.api.letsencrypt.org/directory' },
  { name: "Let's Encrypt V2 Staging", url: 'https://acme-staging-v02.api.letsencrypt.org/directory' },
] as const
export const defaultDirectory = directories[0].url

export interface DirectoryMeta {
  readonly termsOfService?: string
  readonly website?: string
  readonly caaIdentities?: readonly string[]
  readonly externalAccountRequired?: boolean
}

const largest = 64 * KiB
const askMs = 10_000

/** @throws Fault `unavailable` when it does not answer as an ACME server does */
export async function directoryMeta(
  url: string,
  { caFile, signal }: { caFile?: string | undefined; signal: AbortSignal },
) {
  const ca = await trusted(caFile)
  try {
    const { meta = {} } = JSON.parse(await textOf(url, ca, signal)) as {
      readonly meta?: Readonly<Record<string, unknown>>
    }
    return metaOf(meta)
  } catch (cause) {
    throw new Fault('unavailable', `the ACME server '${url}' does not answer: ${messageOf(cause)}`, { cause })
  }
}

function metaOf({
  termsOfService,
  website,
  caaIdentities,
  externalAccountRequired,
}: Readonly<Record<string, unknown>>) {
  return {
    ...(typeof termsOfService === 'string' ? { termsOfService } : {}),
    ...(typeof website === 'string' ? { website } : {}),
    ...(Array.isArray(caaIdentities) ? { caaIdentities: caaIdentities.map(String) } : {}),
    ...(typeof externalAccountRequired === 'boolean' ? { externalAccountRequired } : {}),
  } satisfies DirectoryMeta
}

function textOf(url: string, ca: readonly string[], signal: AbortSignal): Promise<string> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(askMs)])
  return new Promise((resolve, reject) => {
    const isTls = url.startsWith('https:')
    const agent = isTls && new Agent({ secureContext: trusting(ca) })
    const request = (isTls ? getTls : get)(url, { agent, signal: within }, (reply) => {
      const parts: Buffer[] = []
      let size = 0
      reply.on('data', (part: Buffer) => {
        size += part.length
        if (size > largest) request.destroy(new Error(`it says more than ${largest} bytes`))
        parts.push(part)
      })
      reply.on('error', reject)
      reply.on('end', () => {
        if (reply.statusCode === 200) resolve(Buffer.concat(parts).toString('utf8'))
        else reject(new Error(`status ${reply.statusCode ?? 0}`))
      })
    })
    request.on('error', reject)
  })
}
