/**
 * Application checks, declared as property strings so that API, CLI and plans write them alike:
 *
 *   type=http,path=/index.html,contains=hello       the page, asked for inside the isolated network
 *   type=tcp,port=25                                a port that must take a connection, from inside that network
 *   type=file,path=/srv/canary,sha256=9f86d0…       a file of the guest, read in it
 *   type=exec,path=/usr/bin/pg_isready              a program of the guest that must exit with 0
 *
 * `contains` is percent-encoded, because a comma ends a part. This file only reads and judges; the drill
 * fetches, because only it knows the guest.
 */
import { createHash } from 'node:crypto'
import { Fault, invalid } from '#base/fault.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { enumOf, integer, optional, type PropertyFormat, string } from '#base/schema/schema.ts'

const probeTypes = ['http', 'tcp', 'file', 'exec'] as const
export type ProbeType = (typeof probeTypes)[number]

export const probeFormat: PropertyFormat = {
  type: { schema: enumOf(probeTypes), isDefaultKey: true },
  path: {
    schema: optional(
      string({ description: 'Path of the page, file or program.', pattern: /\/[^\s,]*/, maxLength: 1024 }),
    ),
  },
  port: { schema: optional(integer({ description: 'TCP port of the service.', minimum: 1, maximum: 65_535 })) },
  status: {
    schema: optional(integer({ description: 'HTTP status that must come back.', minimum: 100, maximum: 599 })),
  },
  sha256: { schema: optional(string({ description: 'SHA-256 the content must have.', pattern: /[0-9a-f]{64}/ })) },
  contains: {
    schema: optional(
      string({ description: 'Text the content must contain, percent-encoded.', format: 'urlencoded', maxLength: 1024 }),
    ),
  },
}

export interface Probe {
  readonly type: ProbeType
  /** Of the page, file or program; empty of a port. */
  readonly path: string
  readonly port: number
  readonly status: number
  readonly sha256?: string
  readonly contains?: string
}

/** @throws Fault `invalid` naming `field` */
export function parseProbe(text: string, field: string): Probe {
  const { type, path, port, status, sha256, contains } = readPropertyString(probeFormat, text, field)
  const known = probeTypes.find((one) => one === type)
  if (known === undefined) throw invalid({ [field]: `type is one of ${probeTypes.join(', ')}` })
  if (known === 'tcp') {
    if (port === undefined) throw invalid({ [field]: 'a tcp probe needs the port: tcp,port=25' })
    const odd = Object.entries({ path, status, sha256, contains }).find(([, value]) => value !== undefined)
    if (odd) throw invalid({ [field]: `a tcp probe only connects: ${odd[0]} says nothing of that` })
  } else if (path === undefined) throw invalid({ [field]: `a ${known} probe needs a path` })
  return {
    type: known,
    path: typeof path === 'string' ? path : '',
    port: typeof port === 'number' ? port : 80,
    status: typeof status === 'number' ? status : 200,
    ...(typeof sha256 === 'string' ? { sha256 } : {}),
    ...(typeof contains === 'string' ? { contains: decodeURIComponent(contains) } : {}),
  }
}

/** @returns what was seen, in a sentence. @throws Fault `unproven` saying what was expected and what came */
export function judgeContent(probe: Probe, content: Uint8Array): string {
  const subject = `${probe.type} ${probe.path}`
  const hash = createHash('sha256').update(content).digest('hex')
  if (probe.sha256 !== undefined && probe.sha256 !== hash) {
    throw new Fault('unproven', `${subject}: content has SHA-256 ${hash}, expected ${probe.sha256}`)
  }
  if (probe.contains !== undefined && !Buffer.from(content).includes(probe.contains)) {
    throw new Fault(
      'unproven',
      `${subject}: the text '${probe.contains.slice(0, 80)}' is not in its ${content.length} bytes`,
    )
  }
  const how =
    probe.sha256 !== undefined
      ? 'content as at the restore point'
      : probe.contains !== undefined
        ? 'expected text found'
        : 'answered'
  return `${subject}: ${how} (${content.length} bytes, SHA-256 ${hash.slice(0, 16)}…)`
}
