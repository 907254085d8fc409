/** Names for devices and processor models, as clients use them: made, listed by right, changed under a digest, deleted. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { pciDevices } from '#host/system/devices.ts'
import { callerOver } from './caller.ts'
import type { Caller } from './samples.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

let node: WholeNode
let asUser: Caller
const closing = new AsyncDisposableStack()

before(async () => {
  node = closing.use(await wholeNode())
  const { api, asFront } = node
  await api('POST', '/access/users', { userid: 'user@pve', password: 'battery staple' })
  const login = { username: 'user@pve', password: 'battery staple' }
  const { ticket, CSRFPreventionToken } = (await api('POST', '/access/ticket', login)).data as Record<string, string>
  asUser = callerOver(asFront, { Cookie: `PVEAuthCookie=${ticket}`, CSRFPreventionToken: CSRFPreventionToken ?? '' })
})
after(() => closing.disposeAsync())

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

interface Answer {
  readonly data: unknown
  /** What was refused, if it was. */
  readonly refusal?: string
  readonly fields?: readonly string[]
}

async function user(method: Method, path: string, params: Record<string, unknown> = {}): Promise<Answer> {
  const { status, body } = await asUser({ method, path, params, isUpload: false })
  return status === 200 ? { data: body.data } : { data: undefined, refusal: `${status} ${String(body.message)}` }
}

async function root(method: Method, path: string, params: Record<string, unknown> = {}): Promise<Answer> {
  try {
    return { data: (await node.api(method, path, params)).data }
  } catch (fault) {
    if (!isFault(fault)) throw fault
    return { data: undefined, refusal: fault.message, fields: Object.keys(fault.fields ?? {}) }
  }
}

const data = async <T>(path: string, params: Record<string, unknown> = {}) => {
  const { data: found, refusal } = await root('GET', path, params)
  assert.equal(refusal, undefined)
  return found as T
}
const done = async (answer: Promise<Answer>) => assert.equal((await answer).refusal, undefined)
type Named = { id: string; map: string[]; digest: string; description?: string }

const maps = () => {
  const name = node.settings.node
  return {
    pci: `node=${name},path=0000:ff:1f.7,id=1234:5678`,
    usb: `node=${name},id=0951:1666,path=1-2.3`,
    dir: `node=${name},path=/var/tmp`,
  }
}

for (const kind of ['pci', 'usb', 'dir'] as const) {
  test(`a ${kind} mapping is made, found, changed under its digest and deleted`, async () => {
    const path = `/cluster/mapping/${kind}`
    const map = maps()[kind]
    await done(root('POST', path, { id: 'first', description: 'one', map: [map] }))
    const again = await root('POST', path, { id: 'first', map: [map] })
    assert.match(again.refusal ?? '', /mapping 'first' already exists/)
    const { digest, ...found } = await data<Named>(`${path}/first`)
    assert.deepEqual(found, { id: 'first', description: 'one', map: [map] })
    assert.deepEqual(
      (await data<Named[]>(path)).map(({ id }) => id),
      ['first'],
    )
    const stale = await root('PUT', `${path}/first`, { description: 'two', map: [map], digest: '0'.repeat(40) })
    assert.match(stale.refusal ?? '', /detected modified configuration/)
    await done(root('PUT', `${path}/first`, { map: [map], delete: 'description', digest }))
    assert.equal((await data<Named>(`${path}/first`)).description, undefined)
    const twice = await root('PUT', `${path}/first`, { map: [map, map] })
    assert.deepEqual(twice.fields, ['map'])
    await done(root('DELETE', `${path}/first`))
    assert.match((await root('GET', `${path}/first`)).refusal ?? '', /does not exist/)
  })
}

test('what is wrong with a mapping on this node is said, and nothing about one that fits', async () => {
  const name = node.settings.node
  for (const kind of ['pci', 'usb', 'dir'] as const) {
    await root('POST', `/cluster/mapping/${kind}`, { id: 'here', map: [maps()[kind]] })
    await root('POST', `/cluster/mapping/${kind}`, { id: 'elsewhere', map: [maps()[kind].replace(name, 'other')] })
  }
  type Checked = { id: string; checks?: { message: string }[]; error?: { message: string }[] }
  const said = async (kind: string) =>
    Object.fromEntries(
      (await data<Checked[]>(`/cluster/mapping/${kind}`, { 'check-node': name })).map(({ id, checks, error }) => [
        id,
        (checks ?? error ?? []).map(({ message }) => message),
      ]),
    )
  const elsewhere = [`No mapping for node ${name}.`]
  assert.deepEqual(await said('pci'), { here: ["there is no PCI device '0000:ff:1f.7'"], elsewhere })
  assert.deepEqual(await said('usb'), { here: ["there is no USB device at '1-2.3'"], elsewhere })
  assert.deepEqual(await said('dir'), { here: [], elsewhere })
  const [real] = await pciDevices()
  if (real) {
    const id = `${real.vendor.slice(2)}:${real.device.slice(2)}`
    await root('PUT', '/cluster/mapping/pci/here', { map: [`node=${name},path=${real.id},id=${id}`] })
    assert.deepEqual((await said('pci')).here, [])
    await root('PUT', '/cluster/mapping/pci/here', { map: [`node=${name},path=${real.id},id=ffff:ffff`] })
    assert.match(String((await said('pci')).here), /'id' does not match/)
  }
  assert.deepEqual((await root('GET', '/cluster/mapping/pci', { 'check-node': 'other' })).fields, ['check-node'])
})

test('a mapping is seen, and used for a guest, by whoever has the right to it', async () => {
  await root('POST', '/cluster/mapping/usb', { id: 'stick', map: [maps().usb] })
  assert.deepEqual((await user('GET', '/cluster/mapping/usb')).data, [])
  assert.match((await user('GET', '/cluster/mapping/usb/stick')).refusal ?? '', /^403 /)
  const vm = `/nodes/${node.settings.node}/qemu/100/config`
  const made = (await root('POST', `/nodes/${node.settings.node}/qemu`, { vmid: 100 })).data
  assert.equal(await node.ended(made), 'OK')
  await root('PUT', '/access/acl', { path: '/vms/100', users: 'user@pve', roles: 'PVEVMAdmin' })
  assert.match((await user('PUT', vm, { usb0: 'mapping=stick' })).refusal ?? '', /^403 /)
  await root('PUT', '/access/acl', { path: '/mapping/usb/stick', users: 'user@pve', roles: 'PVEMappingUser' })
  assert.deepEqual(
    ((await user('GET', '/cluster/mapping/usb')).data as Named[]).map(({ id }) => id),
    ['stick'],
  )
  await done(user('PUT', vm, { usb0: 'mapping=stick' }))
  for (const [name, value] of Object.entries({ usb1: '0951:1666', hostpci0: '01:00.0', args: '-S', affinity: '0' })) {
    assert.equal(
      String((await user('PUT', vm, { [name]: value })).refusal)
        .replace(/^\d+ /, '')
        .trim(),
      `only root can set '${name}' config`,
    )
  }
})

test('a processor model is made of what QEMU knows, and of nothing else', async () => {
  const path = '/cluster/qemu/custom-cpu-models'
  const model = { cputype: 'lean', 'reported-model': 'qemu64', flags: '+aes;-sse4.2', hidden: 1 }
  await done(root('POST', path, model))
  const { digest, ...found } = await data<Record<string, unknown>>(`${path}/lean`)
  assert.deepEqual(found, { ...model, cputype: 'custom-lean' })
  assert.equal(
    (await data<{ name: string; custom: number }[]>(`/nodes/${node.settings.node}/capabilities/qemu/cpu`))[0]?.name,
    'custom-lean',
  )
  for (const [name, value] of Object.entries({ flags: '+nonsense', 'reported-model': 'nonsense' })) {
    assert.deepEqual((await root('PUT', `${path}/lean`, { [name]: value })).fields, [name])
  }
  await done(root('PUT', `${path}/lean`, { delete: 'flags,hidden', level: 13, digest }))
  assert.deepEqual(Object.keys(await data<object>(`${path}/lean`)).toSorted(), [
    'cputype',
    'digest',
    'level',
    'reported-model',
  ])
  assert.deepEqual((await user('GET', path)).data, [])
  assert.match((await user('GET', '/cluster/qemu/cpu-flags')).refusal ?? '', /^403 /)
  assert.ok((await data<{ name: string }[]>('/cluster/qemu/cpu-flags')).some(({ name }) => name === 'aes'))
  await done(root('DELETE', `${path}/lean`))
  assert.match((await root('GET', `${path}/lean`)).refusal ?? '', /does not exist/)
})

test('a folder of the node is for those who may use its name, also by way of a clone', async () => {
  const qemu = `/nodes/${node.settings.node}/qemu`
  await done(root('POST', '/cluster/mapping/dir', { id: 'share', map: [maps().dir] }))
  await done(root('PUT', '/access/acl', { path: '/vms', users: 'user@pve', roles: 'PVEVMAdmin' }))
  const made = await root('POST', qemu, { vmid: 900, memory: '16' })
  assert.equal(await node.ended(made.data), 'OK')
  const refused = /^403 .*\/mapping\/dir\/share, Mapping\.Use/
  assert.match((await user('PUT', `${qemu}/900/config`, { virtiofs0: 'share' })).refusal ?? '', refused)
  await done(root('PUT', `${qemu}/900/config`, { virtiofs0: 'share' }))
  assert.match((await user('POST', `${qemu}/900/clone`, { newid: 901 })).refusal ?? '', refused)
  await done(root('PUT', '/access/acl', { path: '/mapping/dir/share', users: 'user@pve', roles: 'PVEMappingUser' }))
  await done(user('PUT', `${qemu}/900/config`, { virtiofs0: 'share,cache=never' }))
  const clone = await user('POST', `${qemu}/900/clone`, { newid: 901 })
  assert.equal(await node.ended(clone.data), 'OK')
})
