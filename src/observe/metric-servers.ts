/**
 * Servers that are told how the node, its guests and its storages are.
 *
 * Options are the wire's. What lets one in there (a token, headers) is kept beside them and never shown again.
 */
import { createHash } from 'node:crypto'
import { Fault, invalid } from '#base/fault.ts'
import { record, string, object, optional } from '#base/schema/schema.ts'
import { splitList } from '#base/schema/formats.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

export const metricServerTypes = ['graphite', 'influxdb', 'opentelemetry'] as const
export type MetricServerType = (typeof metricServerTypes)[number]
export type MetricOptions = Readonly<Record<string, unknown>>

export interface MetricServer {
  readonly id: string
  readonly type: MetricServerType
  readonly options: MetricOptions
}

/** Options only servers of one type have. */
const ofType: Readonly<Record<MetricServerType, readonly string[]>> = {
  graphite: ['path', 'proto', 'timeout', 'mtu'],
  influxdb: [
    'influxdbproto',
    'organization',
    'bucket',
    'token',
    'api-path-prefix',
    'max-body-size',
    'verify-certificate',
    'timeout',
    'mtu',
  ],
  opentelemetry: [
    'otel-compression',
    'otel-headers',
    'otel-max-body-size',
    'otel-path',
    'otel-protocol',
    'otel-resource-attributes',
    'otel-timeout',
    'otel-verify-ssl',
  ],
}
const ofAll = ['server', 'port', 'disable']
const secret = ['token', 'otel-headers']
const shape = object({ type: string({ maxLength: 64 }), options: record(), secrets: optional(record()) })
const mostServers = 64

export class MetricServers {
  readonly #documents: Documents<{
    type: string
    options: Record<string, unknown>
    secrets?: Record<string, unknown> | undefined
  }>

  constructor({ store }: { readonly store: Store }) {
    this.#documents = new Documents(store, { noun: 'metric server', prefix: 'cluster/metric-servers/', schema: shape })
  }

  /** By id, without secrets. */
  async list(): Promise<MetricServer[]> {
    return (await this.#documents.list()).map(({ name, value }) => asServer(name, value.type, value.options))
  }

  /** With their secrets, to talk to them. */
  async withSecrets(): Promise<MetricServer[]> {
    const all = await this.#documents.list()
    return all.map(({ name, value }) => asServer(name, value.type, { ...value.options, ...value.secrets }))
  }

  /** Without secrets. @throws Fault `missing` */
  async get(id: string): Promise<MetricServer & { readonly digest: string }> {
    const { type, options } = (await this.#documents.get(id)).value
    return { ...asServer(id, type, options), digest: digestOf(options) }
  }

  /** @throws Fault `conflict` when there is one, `invalid` naming the option */
  async create(id: string, type: MetricServerType, given: MetricOptions): Promise<void> {
    if ((await this.#documents.list()).length >= mostServers) {
      throw new Fault('exhausted', `there are ${mostServers} metric servers, and no more are kept`)
    }
    await this.#documents.create(id, checked(type, given))
  }

  /** What is not given stays. @throws Fault `missing`, `conflict` for an old digest, `invalid` naming the option */
  async change(id: string, given: MetricOptions, remove: string, digest: string | undefined): Promise<void> {
    const removed = splitList(remove)
    await this.#documents.update(id, ({ type, options, secrets = {} }) => {
      if (digest !== undefined && digest !== digestOf(options)) {
        throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
      }
      const known = typeOf(type)
      for (const name of removed) {
        if (name === 'server' || name === 'port') throw invalid({ delete: `a metric server needs its '${name}'` })
        if (![...ofAll, ...ofType[known]].includes(name)) throw invalid({ delete: `there is no option '${name}'` })
      }
      const kept = Object.entries({ ...options, ...secrets }).filter(([name]) => !removed.includes(name))
      return checked(known, { ...Object.fromEntries(kept), ...given })
    })
  }

  async delete(id: string): Promise<void> {
    await this.#documents.delete(id)
  }
}

function asServer(id: string, type: string, options: MetricOptions): MetricServer {
  return { id, type: typeOf(type), options }
}

function typeOf(type: string): MetricServerType {
  const known = metricServerTypes.find((one) => one === type)
  if (!known) throw new Fault('damaged', `a metric server in the store is of type '${type}'`)
  return known
}

function digestOf(options: MetricOptions): string {
  return createHash('sha1')
    .update(JSON.stringify(Object.entries(options).toSorted(([a], [b]) => (a < b ? -1 : 1))))
    .digest('hex')
}

function checked(type: MetricServerType, given: MetricOptions) {
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const wrong = Object.keys(options).filter((name) => ![...ofAll, ...ofType[type]].includes(name))
  if (wrong.length > 0) {
    throw invalid(Object.fromEntries(wrong.map((name) => [name, `a server of type '${type}' has no '${name}'`])))
  }
  for (const name of ['otel-headers', 'otel-resource-attributes']) {
    const text = options[name]
    if (typeof text === 'string' && !textMap(text)) {
      throw invalid({ [name]: 'give a JSON object of texts, plain or in base64' })
    }
  }
  if (options.port === 65_536) throw invalid({ port: 'the last port is 65535' })
  const isSecret = ([name]: [string, unknown]) => secret.includes(name)
  const entries = Object.entries(options)
  return {
    type,
    options: Object.fromEntries(entries.filter((entry) => !isSecret(entry))),
    secrets: Object.fromEntries(entries.filter(isSecret)),
  }
}

/** `{"a":"b"}`, or that in base64; nothing for anything else. */
export function textMap(text: string): Record<string, string> | undefined {
  const plain = text.trimStart().startsWith('{') ? text : Buffer.from(text, 'base64').toString('utf8')
  try {
    const value: unknown = JSON.parse(plain)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
    const entries = Object.entries(value).map(([key, one]: [string, unknown]) => [key, one] as const)
    // Neither ends a line of a request's head.
    const isGood = entries.every(
      ([key, one]) => /^[\w.-]+$/.test(key) && typeof one === 'string' && !/[\r\n\0]/.test(one),
    )
    return isGood ? Object.fromEntries(entries.map(([key, one]) => [key, String(one)])) : undefined
  } catch {
    return undefined // What is no JSON is no map.
  }
}
