import assert from 'node:assert/strict'
import { test } from 'node:test'
import { graphiteLines, influxLines, otlpRequest, packets } from './metric-lines.ts'
import type { Sample } from './sample.ts'

const samples: Sample[] = [
  {
    kind: 'nodes',
    node: 'lab',
    id: 'lab',
    values: { uptime: 7, unknown: undefined, endless: Infinity },
    groups: { memory: { memused: 5 }, nics: { eth0: { receive: 1, transmit: 2 } } },
  },
  { kind: 'qemu', node: 'lab', id: '100', label: 'a, b=c\\\nd', values: { cpu: 0.25 } },
  { kind: 'storages', node: 'lab', id: 'local.raid', label: 'dir', values: { used: 3 } },
]

test('golden lines of Graphite: a dot in a name opens no branch', () => {
  assert.deepEqual(graphiteLines(samples, 'px', 10), [
    'px.nodes.lab.uptime 7 10\n',
    'px.nodes.lab.memory.memused 5 10\n',
    'px.nodes.lab.nics.eth0.receive 1 10\n',
    'px.nodes.lab.nics.eth0.transmit 2 10\n',
    'px.qemu.100.cpu 0.25 10\n',
    'px.storages.lab.local_raid.used 3 10\n',
  ])
})

test('golden lines of InfluxDB: what separates is escaped', () => {
  assert.deepEqual(influxLines(samples, 10), [
    'system,object=nodes,host=lab uptime=7 10000000000\n',
    'memory,object=nodes,host=lab memused=5 10000000000\n',
    'nics,object=nodes,host=lab,instance=eth0 receive=1,transmit=2 10000000000\n',
    'system,object=qemu,vmid=100,nodename=lab,host=a\\,\\ b\\=c\\\\\\ d cpu=0.25 10000000000\n',
    'system,object=storages,nodename=lab,host=local.raid,type=dir used=3 10000000000\n',
  ])
})

test('a request of OpenTelemetry has one gauge for each name', () => {
  const text = JSON.stringify(otlpRequest(samples, {}, '1', 10))
  assert.deepEqual(
    [...text.matchAll(/"name":"(proxmox[^"]+)"/g)].map(([, name]) => name),
    [
      'proxmox_node_uptime',
      'proxmox_node_memory_memused',
      'proxmox_node_nics_receive',
      'proxmox_node_nics_transmit',
      'proxmox_guest_cpu',
      'proxmox_storage_used',
    ],
  )
})

test('packets are as full as can be and hold whole lines; what fits none is left out', () => {
  assert.deepEqual(packets(['aaa\n', 'bb\n', 'c\n', 'much too long\n', 'dddd\n'], 7), ['aaa\nbb\n', 'c\ndddd\n'])
  assert.deepEqual(packets([], 7), [])
})
