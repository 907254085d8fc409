import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { NodeFacts } from '#cluster/node-facts.ts'
import { nodeList, statusOfNode } from './node-status.ts'

suite('this very node', () => {
  test('describes itself in PVE’s shape', async () => {
    const status = await statusOfNode(new NodeFacts({ clock: systemClock }))
    const { memory, rootfs, cpuinfo, loadavg, pveversion, cpu, wait, idle, uptime } = status
    assert.match(pveversion, /^pve-manager\/9\.\d+\.\d+\/[0-9a-f]{8,64}$/)
    assert.equal(loadavg.length, 3)
    for (const average of loadavg) assert.match(average, /^\d+\.\d\d$/)
    for (const share of [cpu, wait, idle]) assert.ok(share >= 0 && share <= 1)
    assert.ok(Number.isInteger(uptime) && uptime > 0)
    assert.equal(memory.used + memory.available, memory.total)
    assert.equal(rootfs.used + rootfs.free, rootfs.total)
    assert.ok(cpuinfo.cpus >= 1 && cpuinfo.sockets >= 1)
  })

  test('tells those who may not audit it no more than that it is there', async () => {
    const facts = new NodeFacts({ clock: systemClock })
    const bare = { node: 'lab', type: 'node', id: 'node/lab', status: 'online', level: '' }
    assert.deepEqual(await nodeList(facts, 'lab', async () => false), [bare])
    const [full] = await nodeList(facts, 'lab', async () => true)
    assert.ok(full?.maxcpu && full.maxmem && full.maxdisk && full.uptime)
  })
})
