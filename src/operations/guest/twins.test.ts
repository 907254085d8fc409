import assert from 'node:assert/strict'
import { test } from 'node:test'
import { asVmid } from '#base/ids.ts'
import { GuestDocuments } from '#guests/documents.ts'
import { openMemoryStore } from '#store/memory.ts'
import { sayTwins } from './twins.ts'

test('who restores beside the original is told which cards have one address, and of no others', async () => {
  const store = openMemoryStore()
  const documents = new GuestDocuments(store, 'node')
  const net0 = 'virtio=52:54:00:AB:CD:EF,bridge=b'
  const guests = {
    'qemu/100': { net0 },
    'lxc/101': { net3: 'name=eth0,hwaddr=52:54:00:ab:cd:ef' },
    'qemu/102': { name: net0 },
  }
  const puts = Object.entries(guests).map(([key, options]) => ({
    put: `guests/${key}`,
    value: { options, snapshots: {} },
  }))
  await store.transact([], puts)
  const said: string[] = []
  await sayTwins(
    { configured: () => documents.list() },
    { vmid: asVmid(100), kind: 'qemu', options: { net0, net1: 'virtio=52:54:00:00:00:01' } },
    (line) => said.push(line),
  )
  assert.equal(said.length, 1)
  assert.match(said[0] ?? '', /^note: net0: guest 101 has the same MAC address \(52:54:00:AB:CD:EF, its net3\)/)
})
