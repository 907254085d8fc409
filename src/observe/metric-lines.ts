/** Samples as text: Graphite's lines, InfluxDB's lines, and OpenTelemetry's JSON; cut into what fits one packet or request. */
import { groupsOf, type Sample } from './sample.ts'

/** `proxmox.nodes.lab.memory.memused 1 1700000000` */
export function graphiteLines(samples: readonly Sample[], prefix: string, seconds: number): string[] {
  return samples.flatMap((sample) => {
    const { kind, node, id } = sample
    const way = kind === 'storages' ? [kind, node, id] : [kind, id]
    return groupsOf(sample).flatMap(({ name, instance, values }) => {
      const place = [prefix, ...[...way, ...[name, instance ?? ''].filter(Boolean)].map(graphiteWord)].join('.')
      return values.map(([key, value]) => `${place}.${graphiteWord(key)} ${value} ${seconds}\n`)
    })
  })
}

/** A dot would open a branch of its own. */
const graphiteWord = (text: string) => text.replaceAll(/[^A-Za-z0-9_-]/g, '_')

/** `system,object=qemu,vmid=100,nodename=lab,host=web cpu=0.1,mem=1 1700000000000000000` */
export function influxLines(samples: readonly Sample[], seconds: number): string[] {
  return samples.flatMap((sample) => {
    const { kind, node, id, label = id } = sample
    const tags: [string, string][] =
      kind === 'nodes'
        ? [['host', id]]
        : kind === 'qemu' || kind === 'lxc'
          ? [
              ['vmid', id],
              ['nodename', node],
              ['host', label],
            ]
          : [
              ['nodename', node],
              ['host', id],
              ['type', label],
            ]
    return groupsOf(sample).map(({ name, instance, values }) => {
      const all = [
        ['object', kind] as const,
        ...tags,
        ...(instance === undefined ? [] : [['instance', instance] as const]),
      ]
      const tagged = all.map(([key, value]) => `${key}=${influxWord(value)}`).join(',')
      const fields = values.map(([key, value]) => `${influxWord(key)}=${value}`).join(',')
      return `${influxWord(name === '' ? 'system' : name)},${tagged} ${fields} ${seconds}000000000\n`
    })
  })
}

const influxWord = (text: string) =>
  text === '' ? '_' : text.replaceAll(/[\n\r]/g, ' ').replaceAll(/[,= \\]/g, '\\$&')

/**
 * One request of OTLP over HTTP, in JSON: a resource for the node, a gauge for each name, a data point for each thing.
 * @param attributes more of what the resource is
 */
export function otlpRequest(
  samples: readonly Sample[],
  attributes: Readonly<Record<string, string>>,
  version: string,
  seconds: number,
): object {
  const gauges = new Map<string, object[]>()
  for (const sample of samples) {
    const { kind, node, id, label } = sample
    const own = { object: kind, node, id, ...(label === undefined ? {} : { name: label }) }
    for (const { name, instance, values } of groupsOf(sample)) {
      const point = { ...own, ...(instance === undefined ? {} : { instance }) }
      for (const [key, value] of values) {
        const metric = ['proxmox', singular[kind], ...(name === '' ? [] : [name]), key].join('_')
        const found = gauges.get(metric) ?? []
        found.push({ asDouble: value, timeUnixNano: `${seconds}000000000`, attributes: attributesOf(point) })
        gauges.set(metric, found)
      }
    }
  }
  const metrics = [...gauges].map(([name, dataPoints]) => ({ name, gauge: { dataPoints } }))
  return {
    resourceMetrics: [
      {
        resource: {
          attributes: attributesOf({ 'service.name': 'hakobune', 'service.version': version, ...attributes }),
        },
        scopeMetrics: [{ scope: { name: 'hakobune', version }, metrics }],
      },
    ],
  }
}

const singular = { nodes: 'node', qemu: 'guest', lxc: 'guest', storages: 'storage' } as const

const attributesOf = (values: Readonly<Record<string, string>>) =>
  Object.entries(values).map(([key, stringValue]) => ({ key, value: { stringValue } }))

/** Lines together, as many as fit. One that is longer than that by itself is left out. */
export function packets(lines: readonly string[], bytes: number): string[] {
  const all: string[] = []
  let [packet, size] = ['', 0]
  for (const line of lines) {
    const length = Buffer.byteLength(line)
    if (length > bytes) continue
    if (size + length > bytes) {
      all.push(packet)
      ;[packet, size] = ['', 0]
    }
    packet += line
    size += length
  }
  return packet === '' ? all : [...all, packet]
}
