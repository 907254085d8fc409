/** `/nodes/{node}/lxc/{vmid}/config`: what a container is made of. */
import { asVmid } from '#base/ids.ts'
import { Fault } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { boolean, nothing, optional, string } from '#base/schema/schema.ts'
import { configDigest } from '#base/schema/standard.ts'
import type { ConfigChange } from '#guests/config.ts'
import { optionParams, optionsFrom, optionsToReply } from '#guests/lxc/options.ts'
import { requireFreeAfter } from '#operations/guest/before-making.ts'
import { configureContainer } from '#operations/guest/configure-container.ts'
import { requireSnapshot } from '#operations/guest/snapshot-config.ts'
import { check, checkAny } from '#rest/endpoint.ts'
import { containerConfigOf, containerConfigReply, pendingOf, pendingReply } from '#views/guest-config.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt } from '../qemu/at.ts'
import { snapshotReply } from '../snapshots.ts'
import { optionRightsSay, requireRoot, rightsToDelete, rightsToSet } from './rights.ts'

const mayAudit = check('VM.Audit', '/vms/{vmid}')
const mayConfigure = checkAny(
  ['Disk', 'CPU', 'Memory', 'Network', 'Options'].map((kind) => `VM.Config.${kind}`),
  '/vms/{vmid}',
)

const optionNames = (description: string) =>
  optional(string({ description, format: 'pve-configid-list', maxLength: 4096 }))

interface ChangeParams {
  readonly vmid: number
  readonly delete?: string | undefined
  readonly revert?: string | undefined
  readonly digest?: string | undefined
}

export const configEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/config',
    description: 'Configuration of a container, with what is pending.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      current: optional(boolean({ description: 'What is in force instead of what is pending.', default: false })),
      snapshot: optional(
        string({ description: 'Configuration of this snapshot.', format: 'pve-configid', maxLength: 40 }),
      ),
    },
    permission: mayAudit,
    returns: containerConfigReply,
    cli: { command: ['ct', 'config'], positional: ['vmid'], examples: ['ct config 200 -o yaml'] },
    async handle({ vmid, current, snapshot }, { services }) {
      const config = await services.guests.config(asVmid(vmid), 'lxc')
      if (snapshot === undefined) return containerConfigOf(config, { current })
      const kept = requireSnapshot(config, snapshot)
      return { ...snapshotReply(optionsToReply, kept), digest: config.digest }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/lxc/{vmid}/config',
    description:
      'Change the configuration and wait until that is done. What a running container cannot take stays pending.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      ...optionParams,
      delete: optionNames('Options to remove.'),
      revert: optionNames('Options to take back to what the running container has.'),
      digest: optional(configDigest),
    },
    permission: mayConfigure,
    alsoNeeds: {
      says: optionRightsSay,
      of: (params) => [
        ...rightsToSet(params.vmid, optionsFrom({ ...params })),
        ...rightsToDelete(params.vmid, [...splitList(params.delete ?? ''), ...splitList(params.revert ?? '')]),
      ],
    },
    returns: nothing,
    cli: {
      command: ['ct', 'set'],
      positional: ['vmid'],
      examples: [
        'ct set 200 --memory 1024 --cores 2',
        'ct set 200 --mp0 local:4,mp=/srv',
        'ct set 200 --delete net1',
        'ct pending 200',
      ],
    },
    async handle(params, call) {
      await changeNow(params, call)
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/pending',
    description: 'Every option with its value in force and the one the next start uses.',
    proxyTo: 'node',
    params: guestAt,
    permission: mayAudit,
    returns: pendingReply,
    cli: {
      command: ['ct', 'pending'],
      positional: ['vmid'],
      columns: ['key', 'value', 'pending', 'delete'],
      id: 'key',
      examples: ['ct pending 200'],
    },
    handle: async (params, { services }) => pendingOf(await services.guests.config(asVmid(params.vmid), 'lxc')),
  }),
]

/** Shorter than clients wait for an answer. */
const answerLimitMs = 50_000

/** A change that needs neither storage nor the running container is one write; any other is the task's, waited for. */
async function changeNow(params: ChangeParams, call: Call): Promise<void> {
  const { guests, tasks } = call.services
  const vmid = asVmid(params.vmid)
  const options = optionsFrom({ ...params })
  requireRoot(call, {}, options)
  const change: ConfigChange = {
    set: options,
    delete: splitList(params.delete ?? ''),
    revert: splitList(params.revert ?? ''),
  }
  if (Object.keys(change.set).length + change.delete.length + change.revert.length === 0) {
    throw new Fault('failed', 'no options specified')
  }
  const removesRootsOwn = [...change.delete, ...change.revert].some((name) => /^(?:dev\d+|hookscript|lock)$/.test(name))
  if (removesRootsOwn) requireRoot(call, {}, { lock: '' })
  await guests.config(vmid, 'lxc')
  await guests.requireUnlocked(vmid)
  await requireFreeAfter(call.services, vmid, options)
  if (await guests.applyChange(vmid, change, { digest: params.digest, kind: 'lxc' })) return
  const task = await call.start(configureContainer, { vmid: params.vmid, change, digest: params.digest })
  const { exitstatus = 'OK' } = await tasks.wait(task, { timeoutMs: answerLimitMs, signal: call.signal })
  if (exitstatus !== 'OK' && !exitstatus.startsWith('WARNINGS')) throw new Fault('failed', exitstatus)
}
