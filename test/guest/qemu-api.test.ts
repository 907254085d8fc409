/** Virtual machines through the API, as a client meets them. */
import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('the API of virtual machines', { timeout: 600_000 }, () => {
  let node: TestNode
  let qemu: string
  before(async () => {
    node = await nodeUnderTest()
    qemu = `/nodes/${node.settings.node}/qemu`
  })
  after(() => node[Symbol.asyncDispose]())

  const get = async (path: string, params = {}) => (await node.api('GET', path, params)) as Reply
  const list = async (path: string, params = {}) => (await node.api('GET', path, params)) as Reply[]
  const refusal = async (
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    params: Record<string, string> = {},
  ) => {
    try {
      await node.api(method, path, params)
    } catch (fault) {
      if (isFault(fault)) return { text: fault.message, fields: fault.fields ?? {} }
      throw fault
    }
    throw new assert.AssertionError({ message: `${method} ${path} was not refused` })
  }
  const tiny = { memory: '16', vga: 'none', balloon: '0', scsihw: 'virtio-scsi-pci', scsi0: 'local:0.01' }

  test('a new guest is in every list at once and gone from them at once', async () => {
    assert.equal(await node.api('GET', '/cluster/nextid'), '100')
    await node.task(await node.api('POST', qemu, { ...tiny, vmid: '100', name: 'web', tags: 'b;a' }))
    const [item] = await list(qemu)
    assert.equal(item?.vmid, 100)
    assert.equal(item?.name, 'web')
    assert.equal(item?.status, 'stopped')
    assert.equal(item?.tags, 'a;b')
    const [resource] = await list('/cluster/resources', { type: 'vm' })
    assert.equal(resource?.id, 'qemu/100')
    assert.equal(resource?.template, 0)
    assert.equal(await node.api('GET', '/cluster/nextid'), '101')
    assert.deepEqual((await refusal('GET', '/cluster/nextid', { vmid: '100' })).fields, {
      vmid: 'VM 100 already exists',
    })
    await node.task(await node.api('DELETE', `${qemu}/100`))
    assert.deepEqual(await list(qemu), [])
    assert.deepEqual(await list('/cluster/resources', { type: 'vm' }), [])
  })

  test('a drive that names no file and no volume is refused when it is named, with what may be said instead', async () => {
    const nowhere = await node.api('POST', qemu, { ...tiny, vmid: '100', scsi0: '/nowhere/disk.raw' })
    const { log } = await node.task(nowhere, /scsi0: file '\/nowhere\/disk.raw' does not exist/)
    assert.match(log, /import-from=/)
    assert.deepEqual(await list(qemu), [])
    const volume = await refusal('POST', qemu, { ...tiny, vmid: '100', scsi0: 'local:1x' })
    assert.deepEqual(volume.fields, { scsi0: "unable to parse volume name '1x'" })
  })

  test('the configuration comes back as it was given, typed, with what the server added', async () => {
    await node.task(await node.api('POST', qemu, { ...tiny, vmid: '100', cores: '2', onboot: '1', net0: 'virtio' }))
    const config = await get(`${qemu}/100/config`)
    assert.equal(config.cores, 2)
    assert.equal(config.onboot, 1)
    assert.equal(config.memory, '16')
    assert.match(String(config.net0), /^virtio=BC:24:11(:[0-9A-F]{2}){3}$/)
    assert.match(String(config.digest), /^[0-9a-f]{40}$/)
    assert.match(String(config.meta), /^creation-qemu=/)
  })

  test('wrong parameters are refused by name, all at once', async () => {
    const { fields } = await refusal('PUT', `${qemu}/100/config`, {
      cores: '0',
      memory: 'much',
      nonsense: '1',
      scsi1: 'local',
    })
    assert.deepEqual(Object.keys(fields).toSorted(), ['cores', 'memory', 'nonsense', 'scsi1'])
    assert.match((await refusal('PUT', `${qemu}/100/config`)).text, /no options specified/)
    assert.deepEqual(Object.keys((await refusal('PUT', `${qemu}/100/config`, { boot: 'order=net9' })).fields), ['boot'])
    assert.deepEqual(Object.keys((await refusal('PUT', `${qemu}/100/config`, { delete: 'nonsense' })).fields), [
      'delete',
    ])
  })

  test('a change by somebody who has not seen the last one is refused', async () => {
    const { digest } = await get(`${qemu}/100/config`)
    await node.api('PUT', `${qemu}/100/config`, { description: 'first', digest: String(digest) })
    const late = await refusal('PUT', `${qemu}/100/config`, { description: 'second', digest: String(digest) })
    assert.match(late.text, /detected modified configuration - file changed by other user\? Try again\./)
  })

  test('disks are added and removed while the call waits', async () => {
    await node.api('PUT', `${qemu}/100/config`, { scsi1: 'local:0.01,format=qcow2' })
    assert.match(String((await get(`${qemu}/100/config`)).scsi1), /^local:100\/vm-100-disk-1\.qcow2,size=/)
    await node.api('PUT', `${qemu}/100/config`, { delete: 'scsi1' })
    const config = await get(`${qemu}/100/config`)
    assert.equal(config.unused0, 'local:100/vm-100-disk-1.qcow2')
    await node.api('PUT', `${qemu}/100/config`, { delete: 'unused0' })
    assert.equal((await get(`${qemu}/100/config`)).unused0, undefined)
    assert.equal((await list(`/nodes/${node.settings.node}/storage/local/content`, { vmid: '100' })).length, 1)
  })

  test('power: start, pause, go on, reset, stop; each says what state the guest is in', async () => {
    const state = async () => (await get(`${qemu}/100/status/current`)).qmpstatus
    const act = async (verb: string, expected = /^OK$/) =>
      node.task(await node.api('POST', `${qemu}/100/status/${verb}`), expected)
    assert.equal(await state(), 'stopped')
    await act('start')
    assert.equal(await state(), 'running')
    await act('start', /VM 100 already running/)
    await act('suspend')
    assert.equal(await state(), 'paused')
    await act('resume')
    await act('reset')
    assert.equal(await state(), 'running')
    const current = await get(`${qemu}/100/status/current`)
    assert.equal(current.status, 'running')
    assert.deepEqual(current.ha, { managed: 0 })
    assert.ok(Number(current.pid) > 0)
    await node.task(await node.api('DELETE', `${qemu}/100`), /VM 100 is running - destroy failed/)
    await act('stop')
    assert.equal(await state(), 'stopped')
    await act('reset', /VM 100 not running/)
  })

  test('what a running guest cannot take is pending until its next start', async () => {
    await node.task(await node.api('POST', `${qemu}/100/status/start`))
    await node.api('PUT', `${qemu}/100/config`, { cores: '1', name: 'renamed' })
    const pending = await list(`${qemu}/100/pending`)
    assert.deepEqual(
      pending.filter(({ key }) => key === 'cores' || key === 'name'),
      [
        { key: 'cores', value: '2', pending: '1' },
        { key: 'name', value: 'renamed' },
      ],
    )
    assert.equal((await get(`${qemu}/100/config`)).cores, 1)
    assert.equal((await get(`${qemu}/100/config`, { current: '1' })).cores, 2)
    await node.api('PUT', `${qemu}/100/config`, { revert: 'cores' })
    assert.equal((await get(`${qemu}/100/config`)).cores, 2)
    await node.task(await node.api('POST', `${qemu}/100/status/stop`))
  })

  test('a missing guest is missing in every call, in the words clients know', async () => {
    const gone = new RegExp(`Configuration file 'nodes/${node.settings.node}/qemu-server/999.conf' does not exist`)
    for (const path of ['config', 'pending', 'status/current']) {
      assert.match((await refusal('GET', `${qemu}/999/${path}`)).text, gone)
    }
    for (const verb of ['start', 'stop', 'shutdown', 'reboot', 'reset', 'suspend', 'resume']) {
      assert.match((await refusal('POST', `${qemu}/999/status/${verb}`)).text, gone)
    }
    assert.match((await refusal('DELETE', `${qemu}/999`)).text, gone)
    assert.match((await refusal('PUT', `${qemu}/999/config`, { cores: '1' })).text, gone)
    assert.match((await refusal('POST', `${qemu}/999/agent/ping`)).text, gone)
    assert.match((await refusal('POST', qemu, { vmid: '100' })).text, /VM 100 already exists on node/)
  })

  test('the guest agent: ping, exec, files, interfaces, freeze', async () => {
    await node.boot(101)
    const agent = `${qemu}/101/agent`
    assert.deepEqual(await node.api('POST', `${agent}/ping`), { result: {} })
    assert.equal(await node.sh(101, 'echo hello'), 'hello')
    await node.api('POST', `${agent}/file-write`, { file: '/tmp/note', content: 'Grüße\n' })
    assert.deepEqual(await node.api('GET', `${agent}/file-read`, { file: '/tmp/note' }), { content: 'Grüße\n' })
    const { result } = (await get(`${agent}/network-get-interfaces`)) as { result: { name: string }[] }
    assert.ok(result.some(({ name }) => name === 'lo'))
    assert.deepEqual(await node.api('POST', `${agent}/fsfreeze-status`), { result: 'thawed' })
    const frozen = (await node.api('POST', `${agent}/fsfreeze-freeze`)) as { result: number }
    assert.ok(frozen.result > 0)
    await node.api('POST', `${agent}/fsfreeze-thaw`)
    await node.task(await node.api('POST', `${qemu}/101/status/shutdown`, { timeout: '60' }))
    assert.match((await refusal('POST', `${agent}/ping`)).text, /VM 101 is not running/)
  })
})
