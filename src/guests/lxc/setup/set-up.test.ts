import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { addressing } from '../../cloud-init/network.ts'
import type { OsType } from './family.ts'
import { withTerminals } from './getty.ts'
import { hostsLines } from './hosts.ts'
import { ifcfgFile } from './ifcfg.ts'
import { mergedInterfaces } from './interfaces.ts'
import { ownFile, withBlock } from './managed.ts'
import { netplanFile } from './netplan.ts'
import { profile } from './network-manager.ts'
import { networkFile } from './networkd.ts'
import { withRootPassword } from './password.ts'
import { osTypeOf, setUpCopy, setUpForStart, setUpNew } from './set-up.ts'
import type { Told, ToldNic } from './told.ts'

const host = machine()
const owner = { uid: 100_000, gid: 100_000 }
const dns = { servers: ['192.0.2.53', '2001:db8::53'], search: ['example.org'] }
const fixed: ToldNic = {
  name: 'eth0',
  ip4: addressing('10.0.0.2/24', '10.0.0.1'),
  ip6: addressing('2001:db8::2/64', 'fe80::1'),
}
const asking: ToldNic = { name: 'eth1', ip4: { kind: 'dhcp' }, ip6: { kind: 'auto' } }
const told: Told = { hostname: 'web', nics: [fixed, asking], dns, ttys: 2 }
const debian = { hasPrefixes: true, hasAuto: true }

suite('what a container is told', () => {
  test('goes between markers; what people wrote around them stays', () => {
    const lines = ['10.0.0.2 web']
    const once = withBlock('127.0.0.1 localhost\n', lines)
    assert.equal(once, '127.0.0.1 localhost\n# --- BEGIN PVE ---\n10.0.0.2 web\n# --- END PVE ---\n')
    const theirs = `# first\n${once}10.9.9.9 printer`
    assert.equal(withBlock(theirs, ['10.0.0.3 web']), theirs.replace('10.0.0.2', '10.0.0.3'))
    assert.equal(withBlock(theirs, []), '# first\n127.0.0.1 localhost\n10.9.9.9 printer')
    assert.equal(withBlock('no end', ['$& $1']), 'no end\n# --- BEGIN PVE ---\n$& $1\n# --- END PVE ---\n')
  })

  test('its name is found at its fixed addresses, and otherwise at one of its own', () => {
    assert.deepEqual(hostsLines(told), ['10.0.0.2 web.example.org web', '2001:db8::2 web.example.org web'])
    const whole = { ...told, hostname: 'web.example.com', nics: [asking] }
    assert.deepEqual(hostsLines(whole), ['127.0.1.1 web.example.com web'])
    assert.deepEqual(hostsLines({ ...whole, hostname: 'web', dns: { ...dns, search: [] } }), ['127.0.1.1 web'])
  })

  test('in interfaces: stanzas of ours are written where they were, others and options of others stay', () => {
    const loopback = 'auto lo\niface lo inet loopback\n'
    const made = `${loopback}
auto eth0
iface eth0 inet static
\taddress 10.0.0.2/24
\tgateway 10.0.0.1
iface eth0 inet6 static
\taddress 2001:db8::2/64
\tgateway fe80::1

auto eth1
iface eth1 inet dhcp
iface eth1 inet6 auto
`
    assert.equal(mergedInterfaces(loopback, told.nics, debian), made)
    assert.equal(mergedInterfaces(made, told.nics, debian), made)
    const theirs = `# hello
source /etc/network/interfaces.d/*

allow-hotplug eth0
iface eth0 inet static
    address 10.0.0.9
    netmask 255.255.255.0
    gateway 10.0.0.254
    # a route of theirs
    up ip route add 10.8.0.0/16 \\
        via 10.0.0.7

iface eth0 inet static
    address 10.0.0.77/24

auto br0
iface br0 inet manual
    bridge_ports none
`
    assert.equal(
      mergedInterfaces(theirs, [{ name: 'eth0', ip4: addressing('10.0.0.2/24', '10.1.0.1') }], debian),
      `# hello
source /etc/network/interfaces.d/*

allow-hotplug eth0
iface eth0 inet static
\taddress 10.0.0.2/24
\tpost-up ip route replace default via 10.1.0.1 dev eth0 onlink
    # a route of theirs
    up ip route add 10.8.0.0/16 \\
        via 10.0.0.7

iface eth0 inet static
    address 10.0.0.77/24

auto br0
iface br0 inet manual
    bridge_ports none
`,
    )
    const manual: ToldNic = { name: 'eth0', ip4: { kind: 'manual' } }
    assert.equal(mergedInterfaces(theirs, [manual], debian), theirs)
    assert.equal(
      mergedInterfaces(made, [{ name: 'eth0', ip4: { kind: 'dhcp' } }, asking], debian).includes('2001'),
      false,
    )
  })

  test('in interfaces of Alpine: masks are written out, and a card that listens is only switched on', () => {
    const alpine = { hasPrefixes: false, hasAuto: false }
    assert.equal(
      mergedInterfaces('auto lo\niface lo inet loopback\n', told.nics, alpine),
      `auto lo
iface lo inet loopback

auto eth0
iface eth0 inet static
\taddress 10.0.0.2
\tnetmask 255.255.255.0
\tgateway 10.0.0.1
iface eth0 inet6 static
\taddress 2001:db8::2
\tnetmask 64
\tgateway fe80::1

auto eth1
iface eth1 inet dhcp
iface eth1 inet6 manual
`,
    )
  })

  test('in files of networkd, netplan, NetworkManager and ifcfg', () => {
    const far: ToldNic = { name: 'eth0', ip4: addressing('10.0.0.2/32', '10.1.0.1'), ip6: { kind: 'dhcp' } }
    assert.equal(
      networkFile(far, dns),
      `${ownFile}
[Match]
Name=eth0

[Network]
DHCP=ipv6
IPv6AcceptRA=yes
Address=10.0.0.2/32
DNS=192.0.2.53
DNS=2001:db8::53
Domains=example.org

[IPv6AcceptRA]
UseAutonomousPrefix=no

[DHCPv6]
WithoutRA=solicit

[Route]
Gateway=10.1.0.1
GatewayOnLink=yes
`,
    )
    assert.match(
      networkFile(fixed, dns),
      /Address=10\.0\.0\.2\/24\nAddress=2001:db8::2\/64\nGateway=10\.0\.0\.1\nGateway=fe80::1\n/,
    )
    assert.equal(
      netplanFile([far], { servers: [], search: [] }),
      `${ownFile}
network:
  version: 2
  renderer: networkd
  ethernets:
    eth0:
      dhcp4: false
      dhcp6: true
      accept-ra: true
      addresses:
        - 10.0.0.2/32
      routes:
        - to: 0.0.0.0/0
          via: 10.1.0.1
          on-link: true
`,
    )
    assert.equal(
      profile(fixed, dns),
      `${ownFile}
[connection]
id=eth0
type=ethernet
interface-name=eth0

[ipv4]
method=manual
address1=10.0.0.2/24,10.0.0.1
dns=192.0.2.53;
dns-search=example.org;

[ipv6]
method=manual
address1=2001:db8::2/64,fe80::1
dns=2001:db8::53;
dns-search=example.org;
`,
    )
    assert.equal(
      ifcfgFile(asking),
      `${ownFile}\nDEVICE=eth1\nTYPE=Ethernet\nONBOOT=yes\nBOOTPROTO=dhcp\nIPV6INIT=yes\nIPV6_AUTOCONF=yes\n`,
    )
  })

  test('terminals of an inittab: those beyond the number go, missing ones come, in the form of the others', () => {
    const busybox =
      '::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty -L 38400 tty1\ntty3::respawn:/sbin/getty 38400 tty3\n'
    const kept = '::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty -L 38400 tty1\n'
    assert.equal(withTerminals(busybox, 2), `${kept}tty2::respawn:/sbin/getty 38400 tty2\n`)
    const old =
      'id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n#T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n'
    assert.equal(withTerminals(old, 1), old)
    assert.match(withTerminals(old, 2), /\n2:2345:respawn:\/sbin\/getty 38400 tty2\n$/)
    assert.equal(withTerminals(old, 0).includes('tty1'), false)
  })

  test('the password of root takes the place of the old one, and nothing else changes', () => {
    const shadow = 'daemon:*:19000:0:99999:7:::\nroot:!:19000:0:99999:7:::\n'
    assert.equal(
      withRootPassword(shadow, '$6$s$h$&'),
      shadow.replace('root:!', () => 'root:$6$s$h$&'),
    )
    assert.equal(withRootPassword('', '$6$s$h'), 'root:$6$s$h:::::::\n')
  })
})

/** Small trees, each with the files by which a family is told apart and set up. */
const trees: Record<string, { ostype: OsType; files: Record<string, string>; network: string }> = {
  Debian: {
    ostype: 'debian',
    files: { 'etc/os-release': 'ID=debian\nVERSION_ID="12"\n', 'usr/sbin/ifup': '' },
    network: 'etc/network/interfaces',
  },
  'Debian with networkd alone': {
    ostype: 'debian',
    files: { 'etc/debian_version': '13.1\n', 'usr/lib/systemd/systemd-networkd': '' },
    network: 'etc/systemd/network/eth0.network',
  },
  Ubuntu: {
    ostype: 'ubuntu',
    files: {
      'usr/lib/os-release': 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n',
      'usr/lib/systemd/systemd-networkd': '',
      'usr/sbin/ifup': '',
    },
    network: 'etc/systemd/network/eth0.network',
  },
  'Ubuntu with netplan': {
    ostype: 'ubuntu',
    files: { 'etc/os-release': 'ID=ubuntu\n', 'etc/netplan/10-lxc.yaml': 'network: {}\n' },
    network: 'etc/netplan/95-node.yaml',
  },
  Alpine: {
    ostype: 'alpine',
    files: { 'etc/os-release': 'ID=alpine\n', 'sbin/ifup': '', 'etc/inittab': '::sysinit:/sbin/openrc sysinit\n' },
    network: 'etc/network/interfaces',
  },
  Fedora: {
    ostype: 'fedora',
    files: { 'etc/os-release': "ID='fedora'\n", 'usr/sbin/NetworkManager': '' },
    network: 'etc/NetworkManager/system-connections/eth0.nmconnection',
  },
  Rocky: {
    ostype: 'centos',
    files: { 'etc/os-release': 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', 'etc/sysconfig/network-scripts/ifup': '' },
    network: 'etc/sysconfig/network-scripts/ifcfg-eth0',
  },
  Arch: {
    ostype: 'archlinux',
    files: { 'etc/os-release': 'ID=arch\n', 'usr/lib/systemd/systemd-networkd': '' },
    network: 'etc/systemd/network/eth0.network',
  },
}

suite('a container is set up', () => {
  let home: string
  before(async () => (home = await mkdtemp(join(tmpdir(), 'hako-setup-'))))
  after(() => rm(home, { recursive: true, force: true }))

  const lay = async (files: Record<string, string>) => {
    const rootfs = await mkdtemp(join(home, 'ct-'))
    for (const [path, content] of Object.entries({ 'etc/shadow': 'root:*:19000::::::\n', ...files })) {
      await mkdir(dirname(join(rootfs, path)), { recursive: true })
      await writeFile(join(rootfs, path), content)
    }
    return { rootfs, text: (path: string) => readFile(join(rootfs, path), 'utf8') }
  }
  const silent = { warn: () => {} }

  for (const [name, { ostype, files, network }] of Object.entries(trees)) {
    test(`as ${name}`, async () => {
      const { rootfs, text } = await lay(files)
      assert.equal(await osTypeOf({ rootfs, owner }), ostype)
      const inside = { rootfs, owner, ostype, ...silent }
      await setUpNew(host, inside, { ...told, passwordHash: '$6$salt$hash', sshKeys: ['ssh-ed25519 AAAA ann'] })
      assert.equal(await text('etc/hostname'), 'web\n')
      assert.match(await text('etc/hosts'), /localhost[\s\S]*10\.0\.0\.2 web\.example\.org web/)
      assert.match(await text('etc/resolv.conf'), /search example\.org\nnameserver 192\.0\.2\.53\n/)
      assert.match(await text(network), /10\.0\.0\.2/)
      assert.match(await text('etc/shadow'), /^root:\$6\$salt\$hash:19000:/)
      assert.equal(await text('root/.ssh/authorized_keys'), 'ssh-ed25519 AAAA ann\n')
      assert.equal((await stat(join(rootfs, 'root/.ssh'))).mode & 0o777, 0o700)
      assert.equal((await stat(join(rootfs, network))).uid, owner.uid)
      const before = await stat(join(rootfs, network))
      await setUpForStart(inside, told)
      assert.deepEqual(await stat(join(rootfs, network)), before)
    })
  }

  test('and what follows from its configuration follows at each start; what people took over stays theirs', async () => {
    const { rootfs, text } = await lay({ ...trees.Arch?.files, 'etc/.pve-ignore.hosts': '', 'etc/hosts': 'mine\n' })
    const inside = { rootfs, owner, ostype: 'archlinux', ...silent } as const
    await setUpNew(host, inside, told)
    await writeFile(join(rootfs, 'etc/systemd/network/br0.network'), '[Match]\nName=br0\n')
    const nics = [{ ...asking, name: 'eth2' }, { name: 'eth3', ip4: { kind: 'manual' } } as const]
    await setUpForStart(inside, { ...told, hostname: 'db', nics, dns: { servers: ['10.0.0.1'], search: [] } })
    assert.equal(await text('etc/hostname'), 'db\n')
    assert.equal(await text('etc/hosts'), 'mine\n')
    assert.match(await text('etc/resolv.conf'), /^# --- BEGIN PVE ---\nnameserver 10\.0\.0\.1\n# --- END PVE ---\n$/)
    const { stdout } = await host.run(['ls', join(rootfs, 'etc/systemd/network')])
    assert.deepEqual(stdout.trim().split('\n'), ['br0.network', 'eth2.network'])
  })

  test('with name servers where systemd-resolved looks for them', async () => {
    const { rootfs, text } = await lay(trees.Ubuntu?.files ?? {})
    await symlink('../run/systemd/resolve/stub-resolv.conf', join(rootfs, 'etc/resolv.conf'))
    await setUpNew(host, { rootfs, owner, ostype: 'ubuntu', ...silent }, told)
    assert.equal(await readlink(join(rootfs, 'etc/resolv.conf')), '../run/systemd/resolve/stub-resolv.conf')
    assert.match(await text('etc/systemd/network/eth0.network'), /^DNS=192\.0\.2\.53$/m)
  })

  test('with the time zone as a link, or as a file where the container has no zones', async () => {
    const { rootfs, text } = await lay({
      ...trees.Debian?.files,
      'usr/share/zoneinfo/Asia/Tokyo': 'zone',
      'etc/timezone': 'UTC\n',
    })
    const inside = { rootfs, owner, ostype: 'debian', ...silent } as const
    await setUpForStart(inside, { ...told, timezone: 'Asia/Tokyo' })
    assert.equal(await readlink(join(rootfs, 'etc/localtime')), '../usr/share/zoneinfo/Asia/Tokyo')
    assert.equal(await text('etc/timezone'), 'Asia/Tokyo\n')
    await setUpForStart(inside, { ...told, timezone: 'Europe/Vienna' })
    assert.deepEqual(await readFile(join(rootfs, 'etc/localtime')), await readFile('/usr/share/zoneinfo/Europe/Vienna'))
    await assert.rejects(setUpForStart(inside, { ...told, timezone: '../../../etc/shadow' }), /is no time zone/)
    await assert.rejects(
      setUpForStart(inside, { ...told, timezone: 'Mars/Olympus' }),
      /neither the container nor the node/,
    )
  })

  test('with keys of its own: a copy has others than the original, and forgets which machine that was', async () => {
    const old = { 'etc/ssh/ssh_host_ed25519_key': 'old', 'etc/ssh/ssh_host_dsa_key': 'old', 'etc/machine-id': 'abc\n' }
    const { rootfs, text } = await lay({ ...trees.Debian?.files, ...old })
    const inside = { rootfs, owner, ostype: 'debian', ...silent } as const
    await setUpCopy(host, inside, told)
    assert.match(await text('etc/ssh/ssh_host_ed25519_key'), /^-----BEGIN OPENSSH PRIVATE KEY-----/)
    assert.match(await text('etc/ssh/ssh_host_ed25519_key.pub'), /^ssh-ed25519 \S+ root@web$/m)
    const { mode, uid } = await stat(join(rootfs, 'etc/ssh/ssh_host_ed25519_key'))
    assert.deepEqual([mode & 0o777, uid], [0o600, owner.uid])
    assert.equal(await text('etc/machine-id'), '')
    await assert.rejects(text('etc/ssh/ssh_host_dsa_key'), /ENOENT/)
    await assert.rejects(text('etc/ssh/ssh_host_rsa_key'), /ENOENT/)
  })

  test('only as what it is, with nothing that would be two lines, and not at all when unmanaged', async () => {
    const { rootfs, text } = await lay(trees.Alpine?.files ?? {})
    await assert.rejects(setUpForStart({ rootfs, owner, ostype: 'debian', ...silent }, told), (fault) =>
      isFault(fault, 'conflict'),
    )
    const inside = { rootfs, owner, ostype: 'alpine', ...silent } as const
    for (const bad of [{ hostname: 'a\nb' }, { dns: { servers: ['1.1.1.1\nx'], search: [] } }, { ttys: 99 }]) {
      await assert.rejects(setUpForStart(inside, { ...told, ...bad }), (fault) => isFault(fault, 'invalid'))
    }
    const warnings: string[] = []
    const unmanaged = { ...inside, ostype: 'unmanaged', warn: (line: string) => warnings.push(line) } as const
    await setUpNew(host, unmanaged, { ...told, passwordHash: '$6$s$h' })
    await setUpForStart(unmanaged, told)
    assert.equal(await text('etc/shadow'), 'root:*:19000::::::\n')
    await assert.rejects(text('etc/hostname'), /ENOENT/)
    assert.equal(warnings.length, 1)
  })
})
