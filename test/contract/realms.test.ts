/** Realms through the API: a real directory, a real task, a job that is due, and who may do which of it. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { RealmSyncJobs } from '#cluster/realm-sync-jobs.ts'
import { runDueSyncs } from '#loops/realm-sync-jobs.ts'
import { allOperations } from '#operations/all.ts'
import { TaskService } from '#tasks/service.ts'
import { buildServices } from '../../src/services.ts'
import { group, person, slapd, type TestDirectory } from '../fixtures/slapd.ts'
import { callerOver } from './caller.ts'
import type { Caller } from './samples.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

let node: WholeNode
let directory: TestDirectory
const closing = new AsyncDisposableStack()

before(async () => {
  node = closing.use(await wholeNode())
  directory = closing.use(await slapd())
  await directory.change([person('ann'), person('bob'), group('staff', 'ann')].join('\n'))
  const { port, bindDn, bindPassword } = directory
  const facts = { server1: '127.0.0.1', port, base_dn: 'dc=example,dc=org', user_attr: 'uid' }
  const secret = { bind_dn: bindDn, password: bindPassword, 'check-connection': 1 }
  await node.api('POST', '/access/domains', { realm: 'office', type: 'ldap', ...facts, ...secret })
})
after(() => closing.disposeAsync())

type Rows = Record<string, unknown>[]
const get = async (path: string, params?: Record<string, unknown>) => (await node.api('GET', path, params)).data
const usersHere = async () =>
  ((await get('/access/users')) as Rows).map(({ userid }) => String(userid)).filter((id) => id.endsWith('@office'))

async function logOf(upid: unknown): Promise<string> {
  const path = `/nodes/${node.settings.node}/tasks/${encodeURIComponent(String(upid))}/log`
  return ((await get(path, { limit: 0 })) as Rows).map(({ t }) => String(t)).join('\n')
}

test('a realm is told without its secrets, to whoever may audit realms', async () => {
  const shown = (await get('/access/domains/office')) as Record<string, unknown>
  assert.deepEqual(
    [shown.type, shown.server1, shown.port, shown.password, shown['check-connection']],
    ['ldap', '127.0.0.1', directory.port, undefined, undefined],
  )
  assert.match(String(shown.digest), /^[0-9a-f]{40}$/)
  await node.api('PUT', '/access/domains/office', { comment: 'desks', default: 1, digest: shown.digest })
  const again = node.api('PUT', '/access/domains/office', { comment: 'chairs', digest: shown.digest })
  await assert.rejects(again, /detected modified configuration/)
  assert.deepEqual((await get('/access/domains')) as Rows, [
    { realm: 'pam', type: 'pam', comment: 'Linux PAM standard authentication' },
    { realm: 'pve', type: 'pve', comment: 'Hakobune authentication server' },
    { realm: 'office', type: 'ldap', comment: 'desks', default: 1 },
  ])
})

test('a synchronization is a task; a dry run says what it would do', async () => {
  const dry = (await node.api('POST', '/access/domains/office/sync', { scope: 'both', 'dry-run': 1 })).data
  assert.match(String(dry), /:auth-realm-sync-test:office:root@pam:$/)
  assert.equal(await node.ended(dry), 'OK')
  assert.match(await logOf(dry), /user 'ann@office': new[^]*nothing was changed/)
  assert.deepEqual(await usersHere(), [])

  const upid = (await node.api('POST', '/access/domains/office/sync', { scope: 'both' })).data
  assert.match(String(upid), /:auth-realm-sync:office:root@pam:$/)
  assert.equal(await node.ended(upid), 'OK')
  assert.deepEqual(await usersHere(), ['ann@office', 'bob@office'])
  assert.deepEqual(((await get('/access/groups/staff-office')) as { members: string[] }).members, ['ann@office'])
  await assert.rejects(node.api('POST', '/access/domains/office/sync'), /Parameter verification failed/)
  await assert.rejects(node.api('POST', '/access/domains/pve/sync', { scope: 'both' }), /no directory to read/)
  const attempt = node.api('POST', '/access/ticket', { username: 'ann@office', password: 'anything' })
  await assert.rejects(attempt, /cannot check passwords of the realm 'office' \(ldap\)/)
})

test('a job synchronizes when it is due, and goes with its realm', async () => {
  const { api, settings } = node
  const path = '/cluster/jobs/realm-sync/nightly'
  const wish = { realm: 'office', schedule: '02:30', scope: 'users', comment: 'at night' }
  await api('POST', path, wish)
  await assert.rejects(api('POST', path, wish), /Parameter verification failed/)
  await assert.rejects(api('POST', '/cluster/jobs/realm-sync/other', { ...wish, realm: 'pve' }), /no directory/)
  await assert.rejects(api('PUT', path, { schedule: '02:30', delete: 'schedule' }), /Parameter verification failed/)
  const { 'next-run': due, ...job } = (await get(path)) as Record<string, unknown>
  assert.deepEqual(job, { id: 'nightly', enabled: 1, ...wish })
  assert.deepEqual(await runsAt(settings, Number(due) - 1), [])
  await directory.change(person('late'))
  const [upid, ...others] = await runsAt(settings, Number(due) + 1)
  assert.deepEqual(others, [])
  assert.equal(await node.ended(upid), 'OK')
  assert.ok((await usersHere()).includes('late@office'))
  const [shown] = (await get('/cluster/jobs/realm-sync')) as Rows
  assert.ok(Number(shown?.['next-run']) > Number(due))
  assert.ok(Number(shown?.['last-run']) <= Date.now() / 1000)
  await api('PUT', path, { schedule: '03:30', enabled: 0, delete: 'comment' })
  const changed = (await get(path)) as Record<string, unknown>
  assert.deepEqual([changed.enabled, changed.comment, changed['next-run']], [0, undefined, undefined])

  await api('POST', '/cluster/jobs/realm-sync/weekly', { ...wish, schedule: 'sat 03:00' })
  await api('DELETE', path)
  await assert.rejects(get(path), /No such job 'nightly'/)
  const { boss, helper } = await people()
  const asHelper = (params: Record<string, unknown>) =>
    helper({ method: 'PUT', path: '/cluster/jobs/realm-sync/weekly', params, isUpload: false })
  // The right on groups alone is not the right on this realm's users.
  assert.equal((await asHelper({ schedule: '04:00' })).status, 403)
  assert.equal(
    (
      await boss({
        method: 'PUT',
        path: '/cluster/jobs/realm-sync/weekly',
        params: { schedule: '04:00' },
        isUpload: false,
      })
    ).status,
    200,
  )
  await api('DELETE', '/access/domains/office')
  assert.deepEqual(await get('/cluster/jobs/realm-sync'), [])
  assert.ok((await usersHere()).includes('ann@office'))
})

test('rights on a guest go with the guest', async () => {
  const { api, settings } = node
  const at = `/nodes/${settings.node}/qemu`
  assert.equal(await node.ended((await api('POST', at, { vmid: 444, memory: 64 })).data), 'OK')
  for (const path of ['/vms/444', '/vms/445'])
    await api('PUT', '/access/acl', { path, roles: 'PVEVMUser', users: 'root@pam' })
  assert.equal(await node.ended((await api('DELETE', `${at}/444`)).data), 'OK')
  const left = ((await get('/access/acl')) as Rows).map(({ path }) => path)
  assert.ok(left.includes('/vms/445') && !left.includes('/vms/444'))
})

/** One round of the loop over the node's own store, at a time of the test's choice. */
async function runsAt(settings: WholeNode['settings'], seconds: number): Promise<string[]> {
  await using undo = new AsyncDisposableStack()
  const services = await buildServices(settings, { log: silentLog, isStoreChecked: false })
  undo.use(services.store)
  const workerEntry = join(import.meta.dirname, '../../src/worker.ts')
  const tasks = undo.use(new TaskService({ ...services, workerEntry, operations: allOperations }))
  const clock = { ...systemClock, now: () => seconds * 1000 }
  const realmSyncJobs = new RealmSyncJobs({ store: services.store, clock })
  const started = await runDueSyncs({ ...services, tasks, clock, realmSyncJobs })
  for (const upid of started) await node.ended(upid)
  return started
}

/** Both may change users of all groups; one of them users of the realm, too. */
async function people(): Promise<{ boss: Caller; helper: Caller }> {
  const callers: Caller[] = []
  for (const username of ['boss@pve', 'helper@pve']) {
    await node.api('POST', '/access/users', { userid: username, password: 'battery staple' })
    await node.api('PUT', '/access/acl', { path: '/access/groups', users: username, roles: 'PVEUserAdmin' })
    const login = await node.api('POST', '/access/ticket', { username, password: 'battery staple' })
    const { ticket, CSRFPreventionToken } = login.data as { ticket: string; CSRFPreventionToken: string }
    callers.push(callerOver(node.asFront, { Cookie: `PVEAuthCookie=${ticket}`, CSRFPreventionToken }))
  }
  await node.api('PUT', '/access/acl', { path: '/access/realm/office', users: 'boss@pve', roles: 'PVEUserAdmin' })
  const [boss, helper] = callers
  assert.ok(boss && helper)
  return { boss, helper }
}
