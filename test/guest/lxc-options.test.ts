/** What the options of a container come to, asked from inside: cards, mounts, features, devices. */
import assert from 'node:assert/strict'
import { chown, mkdtemp, chmod, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { addressesOf } from '#host/network/ip.ts'
import { ownBridge } from '../../src/settings.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('options of containers', { timeout: 180_000 }, () => {
  let node: TestNode
  let lxc: string
  let card: string
  let shared: string
  /** Addresses of others do not pass a bridge. */
  let subnet: string
  before(async () => {
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    card = `name=eth0,bridge=${ownBridge(node.settings)}`
    await offerTemplate(node.settings)
    const own = (await addressesOf(machine(), ownBridge(node.settings)))[0]?.address ?? assert.fail('no bridge')
    subnet = own.replace(/\.\d+$/, '')
    shared = await mkdtemp(join(tmpdir(), 'hako-shared-'))
    await chmod(shared, 0o755)
    for (const [name, owner] of [
      ['of-root', 0],
      ['of-1000', 1000],
    ] as const) {
      await writeFile(join(shared, name), name, { mode: 0o600 })
      await chown(join(shared, name), owner, owner)
    }
    await Promise.all([
      make(100, {
        net0: `${card},ip=${subnet}.11/24,rate=4,mtu=1400`,
        rootfs: 'local:0,mountoptions=nosuid',
        mp0: 'local:0,mp=/srv/plain,mountoptions=noexec;nosuid;noatime',
        mp1: 'local:0.05,mp=/srv/image,mountoptions=nodev;noexec;lazytime,acl=1',
        mp2: `${shared},mp=/srv/node,ro=1`,
        mp3: `${shared},mp=/srv/same,idmap=passthrough`,
        mp4: `${shared},mp=/srv/mapped,idmap=u:5:1000:1;g:5:1000:1`,
        mp5: 'local:0,mp=/srv/own,idmap=passthrough',
        dev0: '/dev/null,mode=0640,uid=3,gid=4',
        dev1: 'path=/dev/zero,deny-write=1,mode=0666',
        features: 'fuse=1,force_rw_sys=1,nesting=1',
        env: 'GREETING=hello\0PLACE=here',
      }),
      make(101, { net0: `${card},ip=${subnet}.12/24` }),
    ])
    // Their system reads no files of addresses.
    await Promise.all([addressed(100), addressed(101)])
  })
  after(async () => {
    await node[Symbol.asyncDispose]()
    await rm(shared, { recursive: true, force: true })
  })

  const make = async (vmid: number, options: Record<string, string>) => {
    const usual = { vmid: String(vmid), ostemplate: template, memory: '64', rootfs: 'local:0', start: '1' }
    await node.task(await node.api('POST', lxc, { ...usual, ...options }))
  }
  const addressed = (vmid: number) => sh(vmid, `ip addr add ${subnet}.${vmid - 89}/24 dev eth0`)
  const set = (vmid: number, params: Record<string, string>) => node.api('PUT', `${lxc}/${vmid}/config`, params)
  const run = async (vmid: number, script: string) =>
    (await node.api('POST', `/hako/containers/${node.settings.node}/${vmid}/exec`, {
      command: ['/bin/sh', '-c', script],
    })) as { exitcode: number; 'out-data': string; 'err-data': string }
  const sh = async (vmid: number, script: string) => {
    const { exitcode, 'out-data': out, 'err-data': err } = await run(vmid, script)
    assert.equal(exitcode, 0, `${script}: ${out}${err}`)
    return out.trimEnd()
  }
  const fails = async (vmid: number, script: string) => {
    const { exitcode, 'out-data': out } = await run(vmid, script)
    assert.notEqual(exitcode, 0, `${script}: ${out}`)
  }
  const change = async (net0: string) => {
    const kept = String(((await node.api('GET', `${lxc}/100/config`)) as Reply).net0)
    const mac = /hwaddr=([0-9A-F:]+)/.exec(kept)?.[1] ?? ''
    await set(100, { net0: `${net0},hwaddr=${mac}` })
    const pending = (await node.api('GET', `${lxc}/100/pending`)) as Reply[]
    return pending.find(({ key }) => key === 'net0')?.pending
  }
  const mountAt = async (place: string) => await sh(100, `grep ' ${place} ' /proc/mounts`)

  /** Seconds for 3 MiB from the one to the other. */
  const seconds = async (from: number, to: number) => {
    const startedMs = performance.now()
    await sh(to, `wget -q -O /tmp/got http://${subnet}.${from - 89}/large && [ $(stat -c %s /tmp/got) = 3145728 ]`)
    return (performance.now() - startedMs) / 1000
  }

  test('a card keeps to its rate in both directions, and follows another one at once', async () => {
    for (const vmid of [100, 101]) await sh(vmid, 'head -c 3145728 /dev/zero > /www/large; httpd -h /www')
    const out = await seconds(100, 101)
    const back = await seconds(101, 100)
    for (const slow of [out, back]) assert.ok(slow > 0.6 && slow < 10, `${out} out, ${back} back`)
    assert.equal(await change(`${card},ip=${subnet}.11/24,mtu=1400,rate=200`), undefined)
    const fast = Math.max(await seconds(100, 101), await seconds(101, 100))
    assert.ok(fast < 0.6, String(fast))
    assert.equal(await change(`${card},ip=${subnet}.11/24,mtu=1400`), undefined)
    const { stdout } = await machine().run(['ip', '-o', 'link', 'show', 'type', 'ifb'])
    assert.doesNotMatch(stdout, new RegExp(`hk${node.settings.instance}s`))
  })

  test('a card has its length, its cable and its address as they are wished, while it runs', async () => {
    assert.match(await sh(100, 'ip link show eth0'), /mtu 1400/)
    await sh(100, `ping -c 1 -W 5 ${subnet}.12`)
    assert.equal(await change(`${card},ip=${subnet}.11/24,mtu=1450,link_down=1,firewall=1`), undefined)
    assert.match(await sh(100, 'ip link show eth0'), /NO-CARRIER.* mtu 1450/)
    await fails(100, `ping -c 1 -W 1 ${subnet}.12`)
    assert.equal(await change(`${card},ip=${subnet}.13/24,gw=${subnet}.9`), undefined)
    assert.doesNotMatch(await sh(100, 'ip -o -4 addr show eth0'), /\.11\/24/)
    assert.match(await sh(100, 'ip link show eth0; route -n'), /mtu 1500[^]*0\.0\.0\.0 +\S+\.9 /)
    await waitFor(async () => (await run(101, `ping -c 1 -W 1 ${subnet}.13`)).exitcode === 0, {
      what: 'the answer at the new address',
      timeoutMs: 10_000,
      everyMs: 50,
    })
    // What would need another card waits for the next start.
    assert.match(String(await change(`${card.replace('eth0', 'lan')},ip=${subnet}.13/24`)), /name=lan/)
    assert.match(await sh(100, 'ip link show eth0'), /eth0/)
    await set(100, { revert: 'net0' })
  })

  test('mounts keep their rules', async () => {
    const plain = await mountAt('/srv/plain')
    for (const rule of ['noexec', 'nosuid', 'noatime']) assert.match(plain, new RegExp(`[ ,]${rule}[ ,]`))
    const image = await mountAt('/srv/image')
    for (const rule of ['noexec', 'nodev', 'ext4', 'lazytime']) assert.match(image, new RegExp(`[ ,]${rule}[ ,]`))
    assert.match(await mountAt('/'), /[ ,]nosuid[ ,]/)
    await sh(
      100,
      'cp /bin/busybox /srv/plain/true 2>/dev/null || cat /bin/busybox > /srv/plain/true; chmod 755 /srv/plain/true',
    )
    await fails(100, '/srv/plain/true')
    await fails(100, 'mount -o remount,bind,exec /srv/plain && /srv/plain/true')
    await fails(100, 'touch /srv/node/new')
    assert.match(await mountAt('/srv/node'), / ro[ ,]/)
  })

  test('mounts show the ids of their disk where that is wished, and make files with them', async () => {
    assert.equal(await sh(100, 'cd /srv/node; stat -c %u of-root of-1000'), '65534\n65534')
    await fails(100, 'cat /srv/node/of-root')
    assert.equal(await sh(100, 'cd /srv/same; stat -c %u of-root of-1000; cat of-root'), '0\n1000\nof-root')
    assert.equal(await sh(100, 'cd /srv/mapped; stat -c %u of-1000 of-root; cat of-1000'), '5\n65534\nof-1000')
    await sh(100, 'touch /srv/same/made /srv/own/made')
    assert.equal((await stat(join(shared, 'made'))).uid, 0)
    assert.equal(await sh(100, 'stat -c %u /srv/own /srv/own/made'), '0\n0')
    await fails(100, 'touch /srv/mapped/other')
  })

  test('devices are there as they were given, and features open what they say', async () => {
    assert.equal(await sh(100, 'stat -c "%F %a %u %g" /dev/null'), 'character special file 640 3 4')
    assert.equal(await sh(100, 'stat -c %a /dev/zero; head -c 2 /dev/zero | wc -c'), '444\n2')
    assert.equal(await sh(100, 'stat -c %F /dev/fuse'), 'character special file')
    await fails(101, 'stat /dev/fuse')
    await sh(100, 'mkdir -p /tmp/p && mount -t proc proc /tmp/p && cat /tmp/p/1/comm')
    const sys = (vmid: number) => sh(vmid, "grep ' /sys ' /proc/mounts")
    assert.match(await sys(100), / sysfs rw[ ,]/)
    assert.match(await sys(101), / sysfs ro[ ,]/)
    assert.equal(
      await sh(100, 'echo $GREETING $PLACE; tr "\\0" "\\n" < /proc/1/environ | grep GREETING'),
      'hello here\nGREETING=hello',
    )
  })

  test('what is known to fail is said before anything is made: an address in use, a storage that is not there', async () => {
    const failing = async (params: Record<string, string>, sign: RegExp) => {
      const usual = { vmid: '110', ostemplate: template, rootfs: 'local:0' }
      const { log } = await node.task(await node.api('POST', lxc, { ...usual, ...params }), sign)
      assert.doesNotMatch(log, /made|allocated|unpack/)
    }
    const wished = (address: string) => ({ net0: `${card},ip=${address}/24` })
    await sh(101, `ip addr add ${subnet}.40/24 dev eth0`)
    const told = [
      [wished(`${subnet}.12`), /net0: address .*\.12 is in use by CT 101/],
      [wished(`${subnet}.1`), /in use by this node/],
      [wished(`${subnet}.40`), /in use by somebody on/],
      [{ ...wished(`${subnet}.50`), net1: `name=eth1,${card.split(',')[1]},ip=${subnet}.50/24` }, /another card/],
      [{ mp3: 'nowhere:1,mp=/srv' }, /storage 'nowhere' does not exist/],
    ] as const
    for (const [params, sign] of told) await failing(params, sign)
    const fault = await set(100, { net0: `${card},ip=${subnet}.12/24` }).then(
      () => assert.fail('it was not refused'),
      (error: unknown) => error,
    )
    assert.match(isFault(fault) ? (fault.fields?.net0 ?? '') : '', /in use by CT 101/)
    const content = await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, { vmid: '110' })
    assert.deepEqual(content, [])
  })

  test('what the kernel would not keep is refused, with what to do instead', async () => {
    const refused = async (params: Record<string, string>) => {
      const fault = await node
        .api('POST', lxc, { vmid: '110', ostemplate: template, rootfs: 'local:0', ...params })
        .then(
          () => assert.fail('it was not refused'),
          (error: unknown) => error,
        )
      return isFault(fault) ? Object.values(fault.fields ?? {}).join() : String(fault)
    }
    assert.match(await refused({ features: 'mknod=1' }), /dev0=/)
    assert.match(await refused({ features: 'mount=nfs' }), /mount it on the node/)
    assert.match(await refused({ mp0: 'local:1,mp=/a,quota=1' }), /quota/)
    assert.match(await refused({ mp0: 'local:1,mp=/a,idmap=u:65000:0:1000' }), /no uids beyond 65535/)
    await make(110, { unprivileged: '0', features: 'mknod=1', start: '1' })
    await sh(110, 'mknod /tmp/null c 1 3 && echo x > /tmp/null')
    await node.task(await node.api('POST', `${lxc}/110/status/stop`))
  })
})
