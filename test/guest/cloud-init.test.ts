/** Cloud-init drives, judged by a guest that mounts them, and what becomes of them with their guests. */
import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { parse } from 'yaml'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { smallDisk } from '../fixtures/small-disk.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

const host = machine()
const keys = [
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx1Y2t5bnVtYmVyc2V2ZW5hbmR0aGlydGVlbg== Zoë\'s "key": 50% # of 2, \\ done',
  'from="10.0.0.0/8,*.example.com",no-pty ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7 12:30:45',
]

suite('cloud-init drives', { timeout: 900_000 }, () => {
  let node: TestNode
  let qemu: string
  before(async () => {
    node = await nodeUnderTest()
    qemu = `/nodes/${node.settings.node}/qemu`
    await node.boot(100, {
      name: 'web-1',
      scsi1: 'local:cloudinit',
      ciuser: 'ann',
      cipassword: 's3cr€t \'and\' "more"',
      sshkeys: encodeURIComponent(`${keys.join('\n')}\n`),
      ipconfig0: 'ip=192.0.2.10/24,gw=192.0.2.1,ip6=2001:db8::10/64,gw6=2001:db8::1',
      nameserver: '192.0.2.53 2001:db8::53',
      searchdomain: 'example.com',
      ciupgrade: '0',
    })
  })
  after(() => node[Symbol.asyncDispose]())

  const get = (path: string, params = {}) => node.api('GET', `${qemu}/${path}`, params)
  const config = async (vmid: number) => (await get(`${vmid}/config`)) as Reply
  const post = async (path: string, params = {}) => node.task(await node.api('POST', `${qemu}/${path}`, params))
  const set = (vmid: number, params: Record<string, string>) => node.api('PUT', `${qemu}/${vmid}/config`, params)
  const update = (vmid: number) => node.api('PUT', `${qemu}/${vmid}/cloudinit`)
  const dump = async (vmid: number, type: string) => String(await get(`${vmid}/cloudinit/dump`, { type }))
  const uuidOf = async (vmid: number) => String((parse(await dump(vmid, 'meta')) as Reply)['instance-id'])
  const volumes = async (vmid: number, storage = 'local') =>
    (
      (await node.api('GET', `/nodes/${node.settings.node}/storage/${storage}/content`, {
        content: 'images',
        vmid: String(vmid),
      })) as Reply[]
    ).map(({ volid }) => volid)
  const drives = async (vmid: number) => (await volumes(vmid)).filter((volid) => String(volid).includes('cloudinit'))
  const refusal = async (call: Promise<unknown>) => {
    try {
      await call
    } catch (fault) {
      if (isFault(fault)) return fault
      throw fault
    }
    throw new assert.AssertionError({ message: 'it was not refused' })
  }
  /** What the guest finds on the disc in its drive. */
  const onDrive = async () => {
    const script = [
      'umount /m 2>/dev/null; mkdir -p /m; mount -t iso9660 -o ro /dev/sr0 /m || exit 1; cd /m',
      'find . -type f | sort | while read f; do echo "${f#./} $(base64 < $f | tr -d \'\\n\')"; done',
    ].join('\n')
    const lines = (await node.sh(100, script)).split('\n').map((line) => line.split(' '))
    return Object.fromEntries(
      lines.map(([name = '', content = '']) => [name, Buffer.from(content, 'base64').toString()]),
    )
  }
  const labelOnDrive = () => node.sh(100, "dd if=/dev/sr0 bs=1 skip=32808 count=32 2>/dev/null | tr -d ' \\n'")
  const parsed = (text: string | undefined) => parse(text ?? '') as Reply

  test('a guest is told its name, user, keys and addresses as they were given', async () => {
    assert.equal(await labelOnDrive(), 'cidata')
    const files = await onDrive()
    assert.deepEqual(Object.keys(files), ['meta-data', 'network-config', 'user-data', 'vendor-data'])
    assert.match(files['user-data'] ?? '', /^#cloud-config\n/)
    const { password, ...user } = parsed(files['user-data'])
    assert.deepEqual(user, {
      hostname: 'web-1',
      manage_etc_hosts: true,
      fqdn: 'web-1.example.com',
      user: 'ann',
      ssh_authorized_keys: keys,
      chpasswd: { expire: false },
      users: ['default'],
      package_upgrade: false,
    })
    const salt = /^\$6\$([^$]+)\$/.exec(String(password))?.[1] ?? ''
    const check = await host.run(['openssl', 'passwd', '-6', '-salt', salt, '-stdin'], {
      input: 's3cr€t \'and\' "more"\n',
    })
    assert.equal(password, check.stdout.trim())
    const mac = /=([0-9A-F:]{17})/.exec(String((await config(100)).net0))?.[1]?.toLowerCase()
    assert.deepEqual(parsed(files['network-config']), {
      version: 1,
      config: [
        {
          type: 'physical',
          name: 'eth0',
          mac_address: mac,
          subnets: [
            { type: 'static', address: '192.0.2.10/24', gateway: '192.0.2.1' },
            { type: 'static6', address: '2001:db8::10/64', gateway: '2001:db8::1' },
          ],
        },
        { type: 'nameserver', address: ['192.0.2.53', '2001:db8::53'], search: ['example.com'] },
      ],
    })
    assert.equal(parsed(files['meta-data'])['local-hostname'], 'web-1')
  })

  test('a dump is what is on the drive, but for the password, which is never shown', async () => {
    const files = await onDrive()
    assert.equal(await dump(100, 'network'), files['network-config'])
    assert.equal(await dump(100, 'meta'), files['meta-data'])
    const hash = String(parsed(files['user-data']).password)
    assert.equal(await dump(100, 'user'), files['user-data']?.replace(hash, '**********'))
    for (const path of ['100/config', '100/pending', '100/cloudinit']) {
      const shown = JSON.stringify(await get(path))
      assert.match(shown, /"\*{10}"/)
      assert.ok(!shown.includes('$6$') && !shown.includes('s3cr'), path)
    }
    const { fields } = await refusal(set(100, { cipassword: '**********' }))
    assert.deepEqual(Object.keys(fields ?? {}), ['cipassword'])
  })

  test('changes wait while the guest runs, and reach it as a new disc with a new instance id', async () => {
    const before = await onDrive()
    await set(100, { ipconfig0: 'ip=dhcp,ip6=auto', delete: 'nameserver,searchdomain', sshkeys: '' })
    const items = (await get('100/cloudinit')) as Reply[]
    const item = (key: string) => items.find((one) => one.key === key)
    assert.deepEqual(item('ipconfig0'), {
      key: 'ipconfig0',
      value: 'ip=192.0.2.10/24,gw=192.0.2.1,ip6=2001:db8::10/64,gw6=2001:db8::1',
      pending: 'ip=dhcp,ip6=auto',
    })
    assert.deepEqual(item('nameserver'), { key: 'nameserver', value: '192.0.2.53 2001:db8::53', delete: 1 })
    const pending = ((await get('100/pending')) as Reply[]).filter((one) => 'pending' in one || 'delete' in one)
    assert.deepEqual(
      pending.map(({ key }) => key),
      ['ipconfig0', 'nameserver', 'searchdomain', 'sshkeys'],
    )
    assert.deepEqual(await onDrive(), before)
    // The disc is mounted in the guest meanwhile.
    await update(100)
    const now = await onDrive()
    assert.deepEqual((parsed(now['network-config']).config as Reply[])[0]?.subnets, [
      { type: 'dhcp4' },
      { type: 'ipv6_slaac' },
    ])
    assert.equal((parsed(now['network-config']).config as Reply[]).length, 1)
    assert.equal(parsed(now['user-data']).ssh_authorized_keys, undefined)
    assert.notEqual(parsed(now['meta-data'])['instance-id'], parsed(before['meta-data'])['instance-id'])
    const rest = [...((await get('100/cloudinit')) as Reply[]), ...((await get('100/pending')) as Reply[])]
    assert.deepEqual(
      rest.filter((one) => 'pending' in one || 'delete' in one),
      [],
    )
    await update(100)
    assert.deepEqual(await onDrive(), now, 'what did not change is written as it was')
  })

  test('a config drive has the layout of OpenStack', async () => {
    await set(100, {
      citype: 'configdrive2',
      ipconfig0: 'ip=198.51.100.77/23,gw=198.51.100.1',
      sshkeys: encodeURIComponent(keys[0] ?? ''),
      nameserver: '198.51.100.53',
    })
    await update(100)
    assert.equal(await labelOnDrive(), 'config-2')
    const files = await onDrive()
    const read = (name: string) => JSON.parse(files[`openstack/latest/${name}`] ?? '') as Reply
    assert.deepEqual(Object.keys(files), [
      'openstack/latest/meta_data.json',
      'openstack/latest/network_data.json',
      'openstack/latest/user_data',
      'openstack/latest/vendor_data.json',
    ])
    const { uuid, ...meta } = read('meta_data.json')
    assert.deepEqual(meta, { hostname: 'web-1', name: 'web-1', public_keys: { 'key-0': keys[0] } })
    assert.match(String(uuid), /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
    const { links, networks, services } = read('network_data.json') as Record<string, Reply[]>
    assert.equal(links?.[0]?.id, 'eth0')
    assert.deepEqual(networks, [
      {
        id: 'eth0-ipv4',
        link: 'eth0',
        type: 'ipv4',
        ip_address: '198.51.100.77',
        netmask: '255.255.254.0',
        routes: [{ network: '0.0.0.0', netmask: '0.0.0.0', gateway: '198.51.100.1' }],
      },
    ])
    assert.deepEqual(services, [{ type: 'dns', address: '198.51.100.53' }])
    assert.equal(parsed(files['openstack/latest/user_data']).user, 'ann')
    assert.equal(await dump(100, 'network'), files['openstack/latest/network_data.json'])
    await set(100, { delete: 'citype,nameserver' })
  })

  test('snippets take the place of what would be generated, byte by byte', async () => {
    const place = join(node.settings.stateDir, 'storage/local/snippets')
    await mkdir(place, { recursive: true })
    const own = {
      user: '#!/bin/sh\necho "ünïcode"\n',
      vendor: '#cloud-config\nruncmd: [true]\n',
      meta: 'instance-id: i1\n',
    }
    for (const [kind, content] of Object.entries(own)) await writeFile(join(place, `${kind}.yaml`), content)
    await set(100, {
      cicustom: Object.keys(own)
        .map((kind) => `${kind}=local:snippets/${kind}.yaml`)
        .join(','),
    })
    await update(100)
    const files = await onDrive()
    assert.equal(files['user-data'], own.user)
    assert.equal(files['vendor-data'], own.vendor)
    assert.equal(files['meta-data'], own.meta)
    assert.equal(parsed(files['network-config']).version, 1)
    assert.equal(await dump(100, 'user'), own.user)
  })

  test('a missing snippet is named, and neither a running nor a stopped guest is touched', async () => {
    const before = await onDrive()
    await set(100, { cicustom: 'user=local:snippets/gone.yaml' })
    assert.match((await refusal(update(100))).message, /cicustom, user: .*local:snippets\/gone\.yaml' does not exist/)
    assert.deepEqual(await onDrive(), before)
    await set(100, { revert: 'cicustom' })

    await node.task(
      await node.api('POST', qemu, {
        vmid: '101',
        memory: '16',
        vga: 'none',
        name: 'small',
        scsi0: 'local:0.01,format=qcow2',
        ide2: 'local:cloudinit',
        net0: 'virtio',
        cicustom: 'network=local:snippets/gone.yaml',
      }),
    )
    assert.match(String((await config(101)).ide2), /^local:101\/vm-101-cloudinit\.raw,media=cdrom,size=4M$/)
    await node.task(await node.api('POST', `${qemu}/101/status/start`), /cicustom, network: .* does not exist/)
    assert.equal(((await get('101/status/current')) as Reply).status, 'stopped')
    await set(101, { delete: 'cicustom' })
  })

  test('what cannot be is refused by name, with the part that is wrong', async () => {
    const complaint = async (params: Record<string, string>) => {
      const { fields = {} } = await refusal(set(101, params))
      const [name = ''] = Object.keys(params)
      return fields[name] ?? JSON.stringify(fields)
    }
    assert.match(await complaint({ ipconfig0: 'ip=10.0.0.300/24' }), /ip: .*valid network in CIDR notation/)
    assert.match(await complaint({ ipconfig0: 'ip=10.0.0.3/24,gw=10.0.0' }), /gw: .*valid IPv4 address/)
    assert.match(await complaint({ ipconfig0: 'gw=10.0.0.1' }), /gw: a gateway needs an address/)
    assert.match(await complaint({ ipconfig0: 'ip=dhcp,gw6=2001:db8::1' }), /gw6: a gateway needs an address/)
    assert.match(await complaint({ ipconfig0: 'address=10.0.0.1' }), /'address=10\.0\.0\.1' is none of ip=/)
    assert.match(
      await complaint({ sshkeys: encodeURIComponent(`${keys[0]}\nrsa AAAA`) }),
      /line 2 is no public SSH key/,
    )
    assert.match(await complaint({ cicustom: 'user=local:iso/a.iso' }), /user: .* is no snippet/)
    assert.match(
      await complaint({ citype: 'opennebula', cicustom: 'network=local:snippets/user.yaml' }),
      /network: layout 'opennebula' \(citype\) has no place for it/,
    )
    assert.match(await complaint({ nameserver: 'dns.example.com' }), /valid IP address/)
    assert.match(await complaint({ cipassword: 'a\nb' }), /neither line breaks/)
    assert.match(await complaint({ cipassword: 'x', ostype: 'win11' }), /in clear only/)
    assert.match(await complaint({ scsi3: 'local:cloudinit' }), /a cloud-init drive already/)
    assert.match(await complaint({ virtio3: 'local:cloudinit' }), /cannot be on bus virtio/)
    await set(101, { delete: 'ide2' })
    assert.deepEqual(await volumes(101), ['local:101/vm-101-disk-0.qcow2'])
    const foreign = { ide2: 'local:100/vm-100-cloudinit.raw' }
    assert.match((await refusal(set(101, foreign))).message, /holds images, not iso/)
    assert.match((await refusal(update(101))).message, /VM 101 has no cloud-init drive/)
    await set(101, { ide2: 'local:cloudinit' })
    await set(101, { ide2: 'local:cloudinit' })
    assert.deepEqual(await drives(101), ['local:101/vm-101-cloudinit.raw'])
  })

  test('clones, restored guests and moved drives have a drive of their own', async () => {
    await post('101/clone', { newid: '102', full: '1' })
    assert.match(String((await config(102)).ide2), /^local:102\/vm-102-cloudinit\.raw,/)
    assert.notEqual(await uuidOf(102), await uuidOf(101))

    const { log } = await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '101' }))
    const archive = /backup (\S+) is complete/.exec(log)?.[1] ?? ''
    await set(101, { cipassword: 'later', delete: 'ide2' })
    await node.task(await node.api('POST', qemu, { vmid: '101', archive, force: '1' }))
    assert.deepEqual(await drives(101), ['local:101/vm-101-cloudinit.raw'])
    await node.task(await node.api('POST', qemu, { vmid: '103', archive, unique: '1' }))
    assert.match(String((await config(103)).ide2), /^local:103\/vm-103-cloudinit\.raw,/)
    assert.notEqual(await uuidOf(103), await uuidOf(101))
    await post('103/status/start')
    assert.deepEqual(await drives(103), ['local:103/vm-103-cloudinit.raw'])

    const path = join(node.settings.stateDir, 'other')
    await node.api('POST', '/storage', { storage: 'other', type: 'dir', path, content: 'images' })
    await post('103/move_disk', { disk: 'ide2', storage: 'other', format: 'qcow2' })
    assert.deepEqual([await drives(103), await volumes(103, 'other')], [[], ['other:103/vm-103-cloudinit.qcow2']])
    await update(103)
    assert.deepEqual(
      ((await get('103/pending')) as Reply[]).filter((one) => 'pending' in one),
      [],
    )
    await post('103/status/stop')
    await post('103/status/start')
    await post('103/status/stop')

    await post('102/snapshot', { snapname: 'one' })
    await set(102, { ciuser: 'later', delete: 'ide2' })
    await post('102/snapshot/one/rollback', { start: '1' })
    assert.equal((await config(102)).ciuser, undefined)
    assert.deepEqual(await drives(102), ['local:102/vm-102-cloudinit.raw'], 'a start makes what is missing')
    await post('102/status/stop')
    await post('101/template')
    await post('101/clone', { newid: '104' })
    assert.match(String((await config(104)).ide2), /^local:104\/vm-104-cloudinit\.raw,/)
    for (const vmid of [104, 103, 102, 101]) {
      await node.task(await node.api('DELETE', `${qemu}/${vmid}`))
      assert.deepEqual([await volumes(vmid), await volumes(vmid, 'other')], [[], []])
    }
  })

  test('a backup and its drill keep the password to themselves, and the drill its drive', async () => {
    const { log } = await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100' }))
    const archive = /backup (\S+) is complete/.exec(log)?.[1] ?? ''
    const stored = String(
      await node.api('GET', `/nodes/${node.settings.node}/vzdump/extractconfig`, { volume: archive }),
    )
    assert.match(stored, /^cipassword: \*{10}$/m)
    const all = async () =>
      (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, { content: 'images' })) as Reply[]
    const before = (await all()).length
    await node.task(await node.api('POST', '/hako/drills', { archive, level: 'L3' }))
    assert.equal((await all()).length, before)
    const [newest] = (await node.api('GET', '/hako/drills')) as { evidence: string; reached: string }[]
    assert.equal(newest?.reached, 'L3')
    const names = await readdir(newest.evidence)
    const evidence = await Promise.all(names.map((name) => readFile(join(newest.evidence, name), 'latin1')))
    assert.match(evidence.join('\n'), /vm-\d+-cloudinit/)
    assert.ok(!evidence.some((text) => text.includes('$6$')))
  })

  test('without space for the drive nothing is made, and nothing starts', async () => {
    await using disk = await smallDisk(join(node.settings.stateDir, 'small'), 8 * MiB)
    await node.api('POST', '/storage', { storage: 'tight', type: 'dir', path: disk.path, content: 'images' })
    const guest = { vmid: '110', memory: '16', vga: 'none', ide2: 'tight:cloudinit' }
    await disk.fill(MiB)
    await node.task(await node.api('POST', qemu, guest), /not enough space on storage 'tight'/)
    assert.equal((await refusal(config(110))).kind, 'missing')
    await disk.empty()
    await node.task(await node.api('POST', qemu, guest))
    await disk.fill()
    await node.task(await node.api('POST', `${qemu}/110/status/start`), /space .*storage 'tight' for volume/)
    assert.equal(((await get('110/status/current')) as Reply).status, 'stopped')
    await disk.empty()
    await post('110/status/start')
    await post('110/status/stop')
    await node.task(await node.api('DELETE', `${qemu}/110`))
    await node.api('DELETE', '/storage/tight')
  })
})
