/** What the tests of the whole API find on their node: one of each thing, all of them called by one name. */
import assert from 'node:assert/strict'
import { callerOver } from './caller.ts'
import type { Caller, Known } from './samples.ts'
import type { WholeNode } from './whole-node.ts'

/** In the name of everything that is there; nobody without rights may ever read it. */
export const veiled = 'veiled'

export interface SeededNode {
  readonly real: Known
  /** Somebody who can log in, and that is all. */
  readonly asPowerless: Caller
}

export async function seedNode(node: WholeNode): Promise<SeededNode> {
  const { api, settings } = node
  const at = `/nodes/${settings.node}`
  const vmid = 777
  await api('POST', '/access/groups', { groupid: veiled })
  await api('POST', '/access/users', { userid: `${veiled}@pve`, groups: veiled, password: 'correct horse' })
  await api('POST', `/access/users/${veiled}@pve/token/${veiled}`, { comment: veiled })
  await api('POST', `/access/tfa/${veiled}@pve`, { type: 'recovery', description: veiled })
  await api('POST', '/access/roles', { roleid: 'Operator', privs: 'VM.PowerMgmt' })
  await api('PUT', '/access/acl', { path: `/vms/${vmid}`, roles: 'Operator', users: `${veiled}@pve` })
  const path = `${settings.stateDir}/storage/${veiled}`
  await api('POST', '/storage', { storage: veiled, type: 'dir', path, content: 'images,iso,backup' })
  const made = await api('POST', `${at}/qemu`, { vmid, name: veiled, scsi0: `${veiled}:0.01`, memory: 64 })
  assert.equal(await node.ended(made.data), 'OK')
  await api('POST', '/pools', { poolid: veiled, comment: veiled })
  await api('PUT', '/pools', { poolid: veiled, vms: String(vmid), storage: veiled })
  await api('POST', '/cluster/backup', { id: veiled, schedule: 'yearly', vmid: String(vmid), storage: veiled })
  await api('POST', `/cluster/metrics/server/${veiled}`, { type: 'graphite', server: veiled, port: 2003, disable: 1 })
  const saved = await api('POST', `${at}/vzdump`, { vmid: String(vmid), storage: veiled })
  assert.equal(await node.ended(saved.data), 'OK')
  const backups = (await api('GET', '/hako/backups')).data as { volid: string }[]
  return {
    real: {
      node: settings.node,
      vmid,
      storage: veiled,
      userid: `${veiled}@pve`,
      tokenid: veiled,
      groupid: veiled,
      roleid: 'Operator',
      poolid: veiled,
      id: veiled,
      upid: made.data,
      volume: backups[0]?.volid ?? assert.fail('there is no backup'),
    },
    asPowerless: await powerless(node),
  }
}

async function powerless({ api, asFront }: WholeNode): Promise<Caller> {
  const [username, password] = ['powerless@pve', 'battery staple']
  await api('POST', '/access/users', { userid: username, password })
  const login = (await api('POST', '/access/ticket', { username, password })).data as {
    ticket: string
    CSRFPreventionToken: string
  }
  return callerOver(asFront, {
    Cookie: `PVEAuthCookie=${login.ticket}`,
    CSRFPreventionToken: login.CSRFPreventionToken,
  })
}
