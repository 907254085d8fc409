/** Our own branch: drills and their evidence. */
import {
  array,
  boolean,
  enumOf,
  indexed,
  integer,
  object,
  optional,
  propertyString,
  record,
  refine,
  string,
} from '#base/schema/schema.ts'
import { nodeName, storageId, upid, vmid, volumeId } from '#base/schema/standard.ts'
import { drillGuest } from '#operations/recovery/drill.ts'
import { drillRequest } from '#operations/recovery/drill-request.ts'
import { levels } from '#recovery/level.ts'
import { probeFormat } from '#recovery/probe.ts'
import { all, any, check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const drillId = string({
  description: 'Identifier of a drill.',
  pattern: /[a-zA-Z0-9][a-zA-Z0-9-]{0,80}/,
  maxLength: 81,
})
const mayRead = check('Sys.Audit', '/')

const drillFacts = object(
  {
    id: drillId,
    guest: string({ description: 'Guest that was drilled, such as vm/100 or ct/101.' }),
    proven: boolean({ description: 'The wanted level was reached.' }),
    wanted: enumOf(levels, { description: 'Level asked for.' }),
    reached: optional(enumOf(levels, { description: 'Highest level that held.' })),
    recoveryTimeMs: optional(integer({ description: 'Measured recovery time in milliseconds.' })),
    dataAgeMs: optional(integer({ description: 'Age of the data when the drill began, in milliseconds.' })),
    started: string({ description: 'When the drill began.' }),
    archive: string({ description: 'Restore point.' }),
    quote: string({ description: 'The result in one line.' }),
    evidence: string({ description: 'Directory of the evidence on the node.' }),
  },
  { additionalProperties: true },
)

export const drillEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/drills',
    description: 'Drills of this node with what each has proven, newest first.',
    params: {},
    permission: mayRead,
    returns: array(drillFacts),
    isOwn: true,
    cli: {
      command: ['drill', 'list'],
      columns: ['id', 'guest', 'reached', 'wanted', 'proven', 'quote'],
      id: 'id',
      examples: ['drill list', 'drill list -o json'],
    },
    handle: (_, { services }) => services.recovery.list(),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/drills',
    description:
      'Restore a restore point under a scratch id, boot it on an isolated network, climb the proof ladder, and remove it again.',
    params: {
      node: optional(nodeName),
      vmid: optional(refine(vmid, { description: 'Guest whose newest backup is drilled.' })),
      archive: optional(
        refine(volumeId, { description: 'Drill this backup instead, as `hako backup list` names it.' }),
      ),
      'backup-storage': optional(
        refine(storageId, { description: 'Look for the newest backup here; `local` when absent.' }),
      ),
      storage: optional(
        refine(storageId, { description: 'Where the scratch volumes go; where the guest’s were when absent.' }),
      ),
      level: optional(
        enumOf(levels, { description: 'Level that must be reached; when absent L6 with a probe, else L5.' }),
      ),
      'boot-timeout': optional(
        integer({ description: 'Seconds each wait may take.', minimum: 5, maximum: 3600, default: 120 }),
      ),
      ...indexed(
        'probe',
        10,
        propertyString(probeFormat, {
          description:
            'Application check for L6: http,path=/,contains=TEXT; tcp,port=N; file,path=/srv/canary,sha256=HEX; exec,path=/usr/bin/check. Also port=N and status=N for http; TEXT is percent-encoded.',
          maxLength: 4096,
        }),
      ),
    },
    permission: all(
      any(check(['VM.Backup'], '/vms/{vmid}'), check(['VM.Backup'], '/vms')),
      check(['VM.Allocate'], '/vms'),
    ),
    returns: upid,
    isOwn: true,
    cli: {
      command: ['drill', 'run'],
      positional: ['vmid'],
      examples: [
        'drill run 100',
        'drill run 100 --level L6 --probe0 http,path=/,contains=hello --probe1 exec,path=/usr/bin/pg_isready',
        'drill run 101 --level L6 --probe0 tcp,port=5432 --probe1 file,path=/srv/canary',
        'drill run --archive local:backup/vm/100/2026-01-01T00:00:00Z',
      ],
    },
    handle: (params, call) => call.start(drillGuest, drillRequest(params)),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/drills/{drill}',
    description: 'One drill: verdict per level, phases, restore point, evidence.',
    params: { drill: drillId },
    permission: mayRead,
    returns: drillFacts,
    isOwn: true,
    cli: {
      command: ['drill', 'show'],
      positional: ['drill'],
      id: 'id',
      examples: ['drill show 20260101T000041Z-vm-100-990000000 -o yaml'],
    },
    handle: ({ drill }, { services }) => services.recovery.get(drill),
  }),
] as const

export const evidenceEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/evidence',
    description: 'Evidence kept on this node, of drills and of runs of plans, newest first.',
    params: {},
    permission: mayRead,
    returns: array(
      object({
        id: string(),
        kind: enumOf(['drill', 'plan', 'unreadable']),
        ended: optional(string({ description: 'ISO time.' })),
        evidence: string({ description: 'Its directory.' }),
        quote: optional(string({ description: 'What it says, in a sentence.' })),
      }),
    ),
    isOwn: true,
    cli: {
      command: ['evidence', 'list'],
      columns: ['id', 'kind', 'quote'],
      id: 'id',
      examples: ['evidence list', 'evidence list -o json'],
    },
    handle: (_, { services }) => services.recovery.listAll(),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/evidence/{drill}',
    description: 'What there is to ask about the evidence of a drill.',
    params: { drill: drillId },
    permission: mayRead,
    returns: array(object({ name: string() })),
    isOwn: true,
    handle: () => [{ name: 'verify' }],
  }),
  endpoint({
    method: 'GET',
    path: '/hako/evidence/{drill}/verify',
    description: 'Check the evidence of a drill against the signature of this node.',
    params: { drill: drillId },
    permission: mayRead,
    returns: record(),
    isOwn: true,
    cli: {
      command: ['evidence', 'check'],
      proves: 'ok',
      positional: ['drill'],
      examples: ['evidence check 20260101T000041Z-vm-100-990000000'],
    },
    handle: async ({ drill }, { services }) => ({ ...(await services.recovery.verify(drill)) }),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/evidence-chain',
    description:
      'Check that all evidence of this node is one unbroken chain: none taken out, none signed beside another.',
    params: {},
    permission: mayRead,
    returns: object({
      ok: boolean({ description: 'The chain is whole.' }),
      complaints: array(string({ description: 'A break; the evidence is named first.' })),
      evidence: integer({ description: 'How many are in it.' }),
      publicKey: string({ description: 'What checks it anywhere else, as PEM.' }),
    }),
    isOwn: true,
    cli: { command: ['evidence', 'chain'], proves: 'ok', examples: ['evidence chain'] },
    handle: async (_, { services }) => {
      const { ok, complaints, evidence } = await services.recovery.verifyChain()
      return { ok, complaints: [...complaints], evidence, publicKey: await services.recovery.publicKey() }
    },
  }),
] as const
