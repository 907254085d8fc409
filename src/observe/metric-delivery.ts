/** Tells one metric server how everything is, in its own manner. */
import { gzipSync } from 'node:zlib'
import { productVersion } from '#base/product.ts'
import { deliverByHttp, deliverByTcp, deliverByUdp, type Destination } from '#host/web/deliver.ts'
import { graphiteLines, influxLines, otlpRequest, packets } from './metric-lines.ts'
import { type MetricServer, textMap } from './metric-servers.ts'
import type { Sample } from './sample.ts'

/** Of a packet of UDP: what its own head takes away from the MTU. */
const headBytes = 28
/** What UDP can count. */
const mostPacketBytes = 65_507

/** @param now seconds since 1970 @throws Fault `unavailable`, `failed` */
export async function tellServer(
  { type, options }: MetricServer,
  samples: readonly Sample[],
  now: number,
  signal: AbortSignal,
): Promise<void> {
  const to = (timeoutSeconds: number): Destination => {
    const timeoutMs = Math.max(1, timeoutSeconds) * 1000
    return { host: textIn(options, 'server', ''), port: numberIn(options, 'port', 0), timeoutMs, signal }
  }
  const timeout = numberIn(options, 'timeout', 1)
  const packetBytes = Math.min(numberIn(options, 'mtu', 1500) - headBytes, mostPacketBytes)
  switch (type) {
    case 'graphite': {
      const lines = graphiteLines(samples, textIn(options, 'path', 'proxmox'), now)
      if (options.proto === 'tcp') await deliverByTcp(lines.join(''), to(timeout))
      else await deliverByUdp(packets(lines, packetBytes), to(timeout))
      return
    }
    case 'influxdb': {
      const lines = influxLines(samples, now)
      if ((options.influxdbproto ?? 'udp') === 'udp') await deliverByUdp(packets(lines, packetBytes), to(timeout))
      else await deliverToInflux(options, lines, to(timeout))
      return
    }
    case 'opentelemetry':
      await deliverToCollector(options, samples, now, to(numberIn(options, 'otel-timeout', 5)))
      return
    default:
      return type satisfies never
  }
}

type Options = MetricServer['options']

async function deliverToInflux(options: Options, lines: readonly string[], to: Destination): Promise<void> {
  const query = new URLSearchParams({
    org: textIn(options, 'organization', 'proxmox'),
    bucket: textIn(options, 'bucket', 'proxmox'),
  })
  const prefix = textIn(options, 'api-path-prefix', '').replaceAll(/^\/+|\/+$/g, '')
  const token = textIn(options, 'token', '')
  const proof = token === '' ? {} : { Authorization: `Token ${token}` }
  for (const body of packets(lines, numberIn(options, 'max-body-size', 25_000_000))) {
    await deliverByHttp(body, {
      ...to,
      isTls: options.influxdbproto === 'https',
      path: `${prefix === '' ? '' : `/${prefix}`}/api/v2/write?${query.toString()}`,
      headers: { 'Content-Type': 'text/plain; charset=utf-8', ...proof },
      verifiesCertificate: options['verify-certificate'] !== false,
    })
  }
}

async function deliverToCollector(options: Options, samples: readonly Sample[], now: number, to: Destination) {
  const attributes = textMap(textIn(options, 'otel-resource-attributes', '{}')) ?? {}
  const headers = textMap(textIn(options, 'otel-headers', '{}')) ?? {}
  const isPacked = options['otel-compression'] !== 'none'
  for (const part of fitting(samples, numberIn(options, 'otel-max-body-size', 10_000_000), attributes, now)) {
    await deliverByHttp(isPacked ? gzipSync(part) : part, {
      ...to,
      isTls: (options['otel-protocol'] ?? 'https') === 'https',
      path: textIn(options, 'otel-path', '/v1/metrics'),
      headers: { 'Content-Type': 'application/json', ...(isPacked ? { 'Content-Encoding': 'gzip' } : {}), ...headers },
      verifiesCertificate: options['otel-verify-ssl'] !== false,
    })
  }
}

/** As few requests as fit; a sample that does not fit alone is left out. */
function fitting(
  samples: readonly Sample[],
  bytes: number,
  attributes: Readonly<Record<string, string>>,
  now: number,
): string[] {
  const body = JSON.stringify(otlpRequest(samples, attributes, productVersion, now))
  if (Buffer.byteLength(body) <= bytes) return samples.length === 0 ? [] : [body]
  if (samples.length <= 1) return []
  const half = Math.ceil(samples.length / 2)
  return [
    ...fitting(samples.slice(0, half), bytes, attributes, now),
    ...fitting(samples.slice(half), bytes, attributes, now),
  ]
}

function textIn(options: Options, name: string, otherwise: string): string {
  const value = options[name]
  return typeof value === 'string' ? value : otherwise
}

function numberIn(options: Options, name: string, otherwise: number): number {
  const value = options[name]
  return typeof value === 'number' ? value : otherwise
}
