/** `/nodes/{node}/qemu/{vmid}/config`: what a virtual machine is made of. */
import { asVmid } from '#base/ids.ts'
import { Fault } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { boolean, integer, nothing, optional, string } from '#base/schema/schema.ts'
import { configDigest, storageId, upid } from '#base/schema/standard.ts'
import { withPasswordHashed } from '#guests/cloud-init/password.ts'
import type { ConfigChange } from '#guests/config.ts'
import { requireConfidential } from '#guests/qemu/confidential.ts'
import { requireKnownMachine } from '#guests/qemu/known-machine.ts'
import { optionParams, optionsFrom, optionsToReply } from '#guests/qemu/options.ts'
import { configureGuest } from '#operations/guest/configure.ts'
import { requireSnapshot } from '#operations/guest/snapshot-config.ts'
import { check, checkAny } from '#rest/endpoint.ts'
import { configOf, configReply, pendingOf, pendingReply } from '#views/guest-config.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt, skiplock } from './at.ts'
import { optionRightsSay, requireRoot, rightsToDelete, rightsToSet } from './rights.ts'
import { snapshotReply } from '../snapshots.ts'

const mayAudit = check('VM.Audit', '/vms/{vmid}')
const kinds = ['Disk', 'CDROM', 'CPU', 'Memory', 'Network', 'HWType', 'Options', 'Cloudinit']
const mayConfigure = checkAny(
  kinds.map((kind) => `VM.Config.${kind}`),
  '/vms/{vmid}',
)

const optionNames = (description: string) =>
  optional(string({ description, format: 'pve-configid-list', maxLength: 4096 }))
const changeParams = {
  ...guestAt,
  ...optionParams,
  delete: optionNames('Options to remove.'),
  revert: optionNames('Options to take back to what the running guest has.'),
  digest: optional(configDigest),
  force: optional(boolean({ description: 'Destroy the volumes of removed disks.', requires: 'delete' })),
  skiplock,
}

interface ChangeParams {
  readonly vmid: number
  readonly delete?: string | undefined
  readonly revert?: string | undefined
  readonly digest?: string | undefined
  readonly force?: boolean | undefined
  readonly skiplock?: boolean | undefined
}

const alsoNeeds = {
  says: optionRightsSay,
  of: (params: ChangeParams) => [
    ...rightsToSet(params.vmid, optionsFrom({ ...params })),
    ...rightsToDelete(params.vmid, [...splitList(params.delete ?? ''), ...splitList(params.revert ?? '')]),
  ],
}

export const configEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/config',
    description: 'Configuration of a virtual machine, with what is pending.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      current: optional(boolean({ description: 'What is in force instead of what is pending.', default: false })),
      snapshot: optional(
        string({ description: 'Configuration of this snapshot.', format: 'pve-configid', maxLength: 40 }),
      ),
    },
    permission: mayAudit,
    returns: configReply,
    cli: { command: ['vm', 'config'], positional: ['vmid'], examples: ['vm config 100 -o yaml'] },
    isKept: true,
    async handle({ vmid, current, snapshot }, { services }) {
      const config = await services.guests.config(asVmid(vmid))
      if (snapshot === undefined) return configOf(config, { current })
      const kept = requireSnapshot(config, snapshot)
      return { ...snapshotReply(optionsToReply, kept), digest: config.digest }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/qemu/{vmid}/config',
    description:
      'Change the configuration and wait until that is done. What a running guest cannot take stays pending.',
    proxyTo: 'node',
    params: changeParams,
    permission: mayConfigure,
    alsoNeeds,
    returns: nothing,
    cli: {
      command: ['vm', 'set'],
      positional: ['vmid'],
      examples: [
        'vm set 100 --memory 4096 --cores 2',
        'vm set 100 --scsi1 local:16',
        'vm set 100 --ide2 local:cloudinit --ciuser ann --ipconfig0 ip=192.0.2.10/24,gw=192.0.2.1',
        'vm set 100 --delete net1',
        'vm pending 100',
      ],
    },
    async handle(params, call) {
      await changeNow(params, call)
      return null
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/config',
    description: 'Change the configuration in a task.',
    proxyTo: 'node',
    params: {
      ...changeParams,
      background_delay: optional(integer({ description: 'Seconds to wait for its end.', minimum: 1, maximum: 30 })),
      'import-working-storage': optional(storageId),
    },
    permission: mayConfigure,
    alsoNeeds,
    returns: upid,
    isKept: true,
    handle: async (params, call) => call.start(configureGuest, await requestOf(params, call)),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/pending',
    description: 'Every option with its value in force and the one the next start uses.',
    proxyTo: 'node',
    params: guestAt,
    permission: mayAudit,
    returns: pendingReply,
    cli: {
      command: ['vm', 'pending'],
      positional: ['vmid'],
      columns: ['key', 'value', 'pending', 'delete'],
      id: 'key',
      examples: ['vm pending 100'],
    },
    handle: async (params, { services }) => pendingOf(await services.guests.config(asVmid(params.vmid))),
  }),
]

async function requestOf(params: ChangeParams, call: Call) {
  const given = optionsFrom({ ...params })
  requireRoot(call, params, given)
  await requireKnownMachine(call.services.host, given)
  await requireConfidential(given)
  const options = await withPasswordHashed(call.services.host, given)
  const change: ConfigChange = {
    set: options,
    delete: splitList(params.delete ?? '').map((name) => (name === 'cdrom' ? 'ide2' : name)),
    revert: splitList(params.revert ?? ''),
  }
  if (Object.keys(change.set).length + change.delete.length + change.revert.length === 0) {
    throw new Fault('failed', 'no options specified')
  }
  return { vmid: params.vmid, change, digest: params.digest, force: params.force, skipLock: params.skiplock }
}

/** Shorter than clients wait for an answer. */
const answerLimitMs = 50_000

/** A change that needs no storage is one write; any other is the task's, waited for. */
export async function changeNow(params: ChangeParams, call: Call): Promise<void> {
  const { guests, tasks } = call.services
  const request = await requestOf(params, call)
  const vmid = asVmid(params.vmid)
  if (request.skipLock !== true) await guests.requireUnlocked(vmid)
  if (await guests.applyChange(vmid, request.change, request)) return
  const task = await call.start(configureGuest, request)
  const { exitstatus = 'OK' } = await tasks.wait(task, { timeoutMs: answerLimitMs, signal: call.signal })
  if (exitstatus !== 'OK' && !exitstatus.startsWith('WARNINGS')) throw new Fault('failed', exitstatus)
}
