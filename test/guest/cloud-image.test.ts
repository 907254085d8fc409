/**
 * The path of a cloud image, end to end: a Debian image becomes a template, a linked clone of it is told who it is, and
 * answers by SSH as that.
 */
import assert from 'node:assert/strict'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { parse } from 'yaml'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { addressesOf } from '#host/network/ip.ts'
import { ownBridge } from '../../src/settings.ts'
import { ensureDebianImage } from '../fixtures/debian-image.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const host = machine()
const bootMs = 480_000

suite('a cloud image', { timeout: 900_000 }, () => {
  let node: TestNode
  let image: string
  before(async () => {
    node = await nodeUnderTest()
    image = await ensureDebianImage(host, node.settings.cacheDir)
  })
  after(() => node[Symbol.asyncDispose]())

  test('finds in it a cloud-init that reads the layout of OpenNebula as it was meant', async () => {
    const qemu = `/nodes/${node.settings.node}/qemu`
    const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx1Y2t5bnVtYmVyc2V2ZW5hbmR0aGlydGVlbg== Ann\'s "key" $HOME'
    await node.task(
      await node.api('POST', qemu, {
        vmid: '102',
        name: 'web',
        memory: '16',
        ide2: 'local:cloudinit',
        net0: 'virtio=BC:24:11:00:00:02',
        citype: 'opennebula',
        ciuser: 'ann',
        cipassword: 'only at the console',
        sshkeys: encodeURIComponent(key),
        ipconfig0: 'ip=192.0.2.10/24,gw=192.0.2.1,ip6=2001:db8::10/64,gw6=2001:db8::1',
        nameserver: '192.0.2.53',
        searchdomain: 'example.com',
      }),
    )
    await node.api('PUT', `${qemu}/102/cloudinit`)
    const [root, context] = [join(node.settings.stateDir, 'root'), join(node.settings.stateDir, 'context')]
    await mkdir(root)
    const drive = join(node.settings.stateDir, 'storage/local/images/102/vm-102-cloudinit.raw')
    await host.run(['xorriso', '-osirrox', 'on', '-indev', drive, '-extract', '/', context])
    const label = await host.run(['blkid', '--probe', '--match-tag', 'LABEL', '--output', 'value', drive])
    assert.equal(label.stdout.trim(), 'CONTEXT')
    const inside = [
      `mount -o loop,ro "$1" "$2"; mount --bind "$3" "$2/mnt"; mount --bind /dev "$2/dev"`,
      'chroot "$2" python3 - "$4"',
    ].join('\n')
    const shell = ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', inside, 'sh'] as const
    const program = await readFile(join(import.meta.dirname, '../fixtures/opennebula_reader.py'))
    const { stdout } = await host.run([...shell, image, root, context, 'bc:24:11:00:00:02'], { input: program })
    const { userdata, ...read } = JSON.parse(stdout) as Record<string, Record<string, unknown>> & { userdata: unknown }
    assert.equal(read.metadata?.['local-hostname'], 'web.example.com')
    assert.deepEqual(read.metadata['public-keys'], [key])
    assert.ok(typeof userdata === 'string')
    const user = parse(userdata) as Record<string, unknown>
    assert.equal(user.user, 'ann')
    assert.match(String(user.password), /^\$6\$/)
    assert.deepEqual(read['network-interfaces']?.ethernets, {
      eth0: {
        match: { macaddress: 'bc:24:11:00:00:02' },
        addresses: ['192.0.2.10/24', '2001:db8::10/64'],
        gateway4: '192.0.2.1',
        gateway6: '2001:db8::1',
        nameservers: { addresses: ['192.0.2.53'], search: ['example.com'] },
      },
    })
  })

  test('becomes a template, whose linked clone answers by SSH with the name, user and address it was given', async (t) => {
    const qemu = `/nodes/${node.settings.node}/qemu`
    const bridge = ownBridge(node.settings)
    const template = {
      vmid: '9000',
      name: 'debian',
      ostype: 'l26',
      machine: 'pc',
      // Under emulation a second one takes more of the machine than it gives.
      cores: '1',
      memory: '384',
      scsihw: 'virtio-scsi-pci',
      scsi0: `local:0,import-from=${image}`,
      ide2: 'local:cloudinit',
      serial0: 'socket',
      vga: 'serial0',
      net0: `virtio,bridge=${bridge}`,
    }
    await node.task(await node.api('POST', qemu, template))
    await node.task(await node.api('POST', `${qemu}/9000/template`))
    await node.task(await node.api('POST', `${qemu}/9000/clone`, { newid: '101', name: 'web' }))

    const key = join(node.settings.stateDir, 'key')
    await host.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', "ann's key", '-f', key])
    const [gateway, address] = await addressesOn(bridge)
    await node.api('PUT', `${qemu}/101/config`, {
      ciuser: 'ann',
      cipassword: 'only at the console',
      sshkeys: encodeURIComponent(await readFile(`${key}.pub`, 'utf8')),
      ipconfig0: `ip=${address}/24,gw=${gateway}`,
      nameserver: '192.0.2.53',
      searchdomain: 'example.com',
      ciupgrade: '0',
    })
    await node.task(await node.api('POST', `${qemu}/101/status/start`))

    const began = performance.now()
    const ssh = async (command: string) => {
      const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'ConnectTimeout=30']
      const argv = [
        'ssh',
        '-q',
        '-i',
        key,
        ...options.flatMap((one) => ['-o', one]),
        `ann@${address}`,
        command,
      ] as const
      return host.run(argv, { okCodes: [0, 255], timeoutMs: 120_000 })
    }
    await waitFor(async () => (await ssh('true')).code === 0, { what: 'SSH', timeoutMs: bootMs, everyMs: 500 })
    t.diagnostic(`answered by SSH ${((performance.now() - began) / 1000).toFixed(0)} s after its start`)

    const questions = {
      name: 'hostname',
      fullName: 'hostname --fqdn',
      user: 'id',
      address: 'ip -4 -oneline address show dev eth0',
      route: 'ip route show default',
      root: 'findmnt -no SOURCE /',
      instance: 'cat /var/lib/cloud/data/instance-id',
    }
    // All in one go: under emulation every handshake takes its time.
    const { code, stdout } = await ssh(Object.values(questions).join('; echo ---; '))
    assert.equal(code, 0)
    const answers = stdout.split('---\n').map((answer) => answer.trim())
    const said = Object.fromEntries(Object.keys(questions).map((name, at) => [name, answers[at]]))
    assert.equal(said.name, 'web')
    assert.equal(said.fullName, 'web.example.com')
    assert.match(said.user ?? '', /^uid=1000\(ann\) /)
    assert.match(said.address ?? '', new RegExp(` inet ${address}/24 `))
    assert.match(said.route ?? '', new RegExp(`^default via ${gateway} dev eth0`))
    assert.match(said.root ?? '', /^\/dev\/sda$/)
    const meta = String(await node.api('GET', `${qemu}/101/cloudinit/dump`, { type: 'meta' }))
    const { 'instance-id': instance } = parse(meta) as Record<string, string>
    assert.equal(said.instance, instance)
    const disk = (await node.api('GET', `${qemu}/101/config`)) as Record<string, string>
    assert.match(disk.scsi0 ?? '', /^local:9000\/base-9000-disk-0\.raw\/101\/vm-101-disk-0\.qcow2,/)

    for (const vmid of [101, 9000]) {
      if (vmid === 101) await node.task(await node.api('POST', `${qemu}/${vmid}/status/stop`))
      await node.task(await node.api('DELETE', `${qemu}/${vmid}`))
    }
  })
})

/** The node's own address on the bridge, and one below those it gives out by DHCP. */
async function addressesOn(bridge: string): Promise<[string, string]> {
  const [own] = await addressesOf(host, bridge)
  assert.ok(own)
  return [own.address, own.address.replace(/\.\d+$/, '.9')]
}
