/** Templates, clones and moved disks as clients meet them, on guests that boot from what was made. */
import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('clones', { timeout: 900_000 }, () => {
  let node: TestNode
  let qemu: string
  before(async () => {
    node = await nodeUnderTest()
    qemu = `/nodes/${node.settings.node}/qemu`
    await node.boot(100)
    await node.sh(100, 'echo original > /note && sync')
  })
  after(() => node[Symbol.asyncDispose]())

  const post = async (path: string, params = {}) => node.task(await node.api('POST', `${qemu}/${path}`, params))
  const config = async (vmid: number) => (await node.api('GET', `${qemu}/${vmid}/config`)) as Reply
  const feature = async (vmid: number, name: string) =>
    ((await node.api('GET', `${qemu}/${vmid}/feature`, { feature: name })) as Reply).hasFeature
  const untilNote = (vmid: number, note: string) =>
    waitFor(
      () =>
        node.sh(vmid, 'cat /note').then(
          (text) => text === note,
          () => false,
        ),
      { what: `'${note}' in guest ${vmid}`, timeoutMs: 90_000, everyMs: 200 },
    )
  const refusal = async (path: string, params: Record<string, string>) => {
    try {
      await node.api('POST', `${qemu}/${path}`, params)
    } catch (fault) {
      if (isFault(fault)) return fault
      throw fault
    }
    throw new assert.AssertionError({ message: `${path} was not refused` })
  }
  const remove = async (vmid: number) => {
    await post(`${vmid}/status/stop`)
    await node.task(await node.api('DELETE', `${qemu}/${vmid}`))
  }

  test('a disk moves to another format under a guest that goes on writing', async () => {
    await node.sh(
      100,
      '(while :; do dd if=/dev/urandom of=/junk bs=64k count=16 2>/dev/null; sync; done) >/dev/null 2>&1 & echo $! > /pid',
    )
    await post('100/move_disk', { disk: 'scsi0', format: 'qcow2', delete: '1' })
    assert.match(String((await config(100)).scsi0), /^local:100\/vm-100-disk-1\.qcow2,/)
    assert.equal((await config(100)).unused0, undefined)
    await node.sh(100, 'kill $(cat /pid); echo 3 > /proc/sys/vm/drop_caches; rm /junk; echo original > /note; sync')
    await untilNote(100, 'original')
    assert.match(
      (await refusal('100/move_disk', { disk: 'scsi0', storage: 'local' })).message,
      /you can't move to the same storage with same format/,
    )
    assert.equal(await feature(100, 'snapshot'), 1)
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100' }))
  })

  test('a running guest is cloned, and the clone boots with an address of its own', async () => {
    await node.api('POST', '/pools', { poolid: 'copies' })
    const { log } = await post('100/clone', { newid: '101', name: 'copy', full: '1', pool: 'copies' })
    assert.match(log, /file systems were frozen/)
    const { members } = (await node.api('GET', '/pools/copies')) as { members: { vmid: number }[] }
    assert.deepEqual(
      members.map(({ vmid }) => vmid),
      [101],
    )
    const [source, clone] = [await config(100), await config(101)]
    assert.equal(clone.name, 'copy')
    assert.notEqual(clone.net0, source.net0)
    await post('101/status/start')
    await untilNote(101, 'original')
    await remove(101)
  })

  test('a template is cloned linked; clone, template and another clone do not see each other', async () => {
    await post('100/status/shutdown', { timeout: '60', forceStop: '1' })
    await post('100/template')
    const template = await config(100)
    assert.equal(template.template, 1)
    assert.match(String(template.scsi0), /^local:100\/base-100-disk-1\.qcow2,/)
    assert.equal(await feature(100, 'clone'), 1)
    for (const newid of ['101', '102']) {
      await post('100/clone', { newid })
      assert.match(
        String((await config(Number(newid))).scsi0),
        /^local:100\/base-100-disk-1\.qcow2\/\d+\/vm-\d+-disk-0\.qcow2,/,
      )
      await post(`${newid}/status/start`)
      await untilNote(Number(newid), 'original')
    }
    await node.sh(101, 'echo changed > /note && sync')
    await untilNote(102, 'original')
    await remove(102)
    const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
      content: 'images',
    })) as Reply[]
    assert.equal(content.find(({ vmid }) => vmid === 101)?.parent, 'local:100/base-100-disk-1.qcow2')
  })

  test('a running linked clone is backed up whole, and comes back standing alone', async () => {
    const { log } = await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '101' }))
    const archive = /backup (\S+) is complete/.exec(log)?.[1] ?? ''
    await node.task(await node.api('POST', qemu, { vmid: '103', archive, unique: '1', start: '1' }))
    await untilNote(103, 'changed')
    assert.match(String((await config(103)).scsi0), /^local:103\/vm-103-disk-0\.qcow2,/)
    await remove(103)
  })

  test('a template with linked clones stays, in the words clients know', async () => {
    await node.task(await node.api('DELETE', `${qemu}/100`), /base volume '.*' is still in use by linked clone/)
    assert.equal((await config(100)).template, 1)
    await remove(101)
    await node.task(await node.api('DELETE', `${qemu}/100`))
  })

  test('what a clone cannot be is refused by name', async () => {
    await node.task(await node.api('POST', qemu, { vmid: '110', memory: '16', scsi0: 'local:0.01' }))
    const fields = async (params: Record<string, string>) =>
      Object.keys((await refusal('110/clone', params)).fields ?? {})
    assert.match((await refusal('110/clone', { newid: '111', pool: 'dev' })).message, /pool 'dev' does not exist/)
    assert.deepEqual(await fields({ newid: '111', target: 'elsewhere' }), ['target'])
    assert.deepEqual(await fields({ newid: '111', full: '1', format: 'vmdk' }), ['format'])
    assert.match((await refusal('110/clone', { newid: '110' })).message, /VM 110 already exists/)
    assert.match((await refusal('110/clone', { newid: '111', full: '0' })).message, /Linked clone feature is not/)
    assert.match((await refusal('110/clone', { newid: '111', snapname: 'gone' })).message, /'gone' does not exist/)
  })
})
