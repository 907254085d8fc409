import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '../exec.ts'
import { createNetns, removeNetns } from './netns.ts'
import { deleteTable, listChains, loadRuleset, natRuleset, parseChains } from './nft.ts'

const golden = `table inet hk_lab
delete table inet hk_lab
table inet hk_lab {
  chain a_sign {
  }

  chain input {
    type filter hook input priority filter; policy accept;
    iifname "hklab0" ct state established,related accept
    iifname "hklab0" udp dport 67 accept
    iifname "hklab0" icmp type echo-request accept
    iifname "hklab0" drop
  }

  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "hklab0" oifname "hklab0" accept
    iifname "hklab0" ip saddr != 10.181.3.0/24 drop
    iifname "hklab0" meta nfproto != ipv4 drop
    oifname "hklab0" ct state established,related accept
    oifname "hklab0" drop
    iifname { "eth0", "eth1" } oifname { "eth0", "eth1" } drop
  }

  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.181.3.0/24 ip daddr != 10.181.3.0/24 masquerade
  }
}
`
const rules = {
  table: 'hk_lab',
  bridges: [{ name: 'hklab0', network: '10.181.3.0/24' }],
  keepApart: ['eth0', 'eth1'],
  marks: ['a_sign'],
}

test('the rules of a bridge with NAT', () => {
  assert.equal(natRuleset(rules).trim().replaceAll(/\n\n+/g, '\n\n'), golden.trim())
})

test('a name that could carry another rule is refused', () => {
  assert.throws(
    () => natRuleset({ ...rules, keepApart: ['a" drop; iifname "b'] }),
    (error) => isFault(error, 'invalid'),
  )
  assert.throws(
    () => natRuleset({ ...rules, table: 'x {' }),
    (error) => isFault(error, 'invalid'),
  )
})

test('recorded chains are read', () => {
  const text =
    '{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"chain": {"family": "inet", "table": "hk_lab", "name": "input", "handle": 1}}]}'
  assert.deepEqual(parseChains(text), [{ table: 'hk_lab', name: 'input' }])
})

test('the kernel takes the rules, twice, all or nothing, and gives them up', async () => {
  const host = machine()
  const netns = `hx-nft-${process.pid}`
  const place = { netns }
  try {
    await createNetns(host, netns)
    await loadRuleset(host, natRuleset(rules), place)
    await loadRuleset(host, natRuleset({ ...rules, marks: [] }), place)
    const names = ['forward', 'input', 'postrouting']
    assert.deepEqual((await listChains(host, place)).map(({ name }) => name).toSorted(), names)
    const broken = natRuleset({ ...rules, marks: ['half'] }).replace('masquerade', 'nonsense')
    await assert.rejects(
      loadRuleset(host, broken, place),
      (error) => isFault(error, 'failed') && /nonsense/.test(error.message),
    )
    assert.deepEqual((await listChains(host, place)).map(({ name }) => name).toSorted(), names)
    await deleteTable(host, 'hk_lab', place)
    await deleteTable(host, 'hk_lab', place)
    assert.deepEqual(await listChains(host, place), [])
  } finally {
    await removeNetns(host, netns)
  }
})
