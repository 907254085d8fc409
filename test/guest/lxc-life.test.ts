/** Containers as clients meet them, asked from inside: made from a template, run, held to limits, found again. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setDefaultCACertificates } from 'node:tls'
import { nodeFlags } from '#base/node-flags.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { machine } from '#host/exec.ts'
import { compiled } from '../compiled.ts'
import { ownBridge } from '../../src/settings.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Opened, rootSession, terminalAt } from './console-client.ts'

type Reply = Record<string, unknown>

const program = join(import.meta.dirname, '../../src/cli/main.ts')

suite('containers', { timeout: 120_000 }, () => {
  let node: TestNode
  let lxc: string
  let net0: string
  before(async () => {
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    net0 = `name=eth0,bridge=${ownBridge(node.settings)}`
    await offerTemplate(node.settings)
    await make(100, { hostname: 'first', memory: '64', swap: '0', cores: '1', net0, start: '1' })
    await make(101, {
      hostname: 'second',
      memory: '64',
      rootfs: 'local:1',
      mp0: 'local:0,mp=/srv/more',
      net0,
      start: '1',
    })
  })
  after(() => node[Symbol.asyncDispose]())

  const make = async (vmid: number, options: Record<string, string>) =>
    node.task(await node.api('POST', lxc, { vmid: String(vmid), ostemplate: template, rootfs: 'local:0', ...options }))
  const act = async (vmid: number, verb: string, params = {}) =>
    node.task(await node.api('POST', `${lxc}/${vmid}/status/${verb}`, params))
  const get = async (path: string, params = {}) => (await node.api('GET', `${lxc}/${path}`, params)) as Reply
  const set = (vmid: number, params: Record<string, string>) => node.api('PUT', `${lxc}/${vmid}/config`, params)
  const run = async (vmid: number, ...command: string[]) =>
    (await node.api('POST', `/hako/containers/${node.settings.node}/${vmid}/exec`, { command })) as {
      exitcode: number
      'out-data': string
      'err-data': string
    }
  const sh = async (vmid: number, script: string) => {
    const { exitcode, 'out-data': out, 'err-data': err } = await run(vmid, '/bin/sh', '-c', script)
    assert.equal(exitcode, 0, `${script}: ${out}${err}`)
    return out.trimEnd()
  }
  const refusal = async (method: 'POST' | 'PUT' | 'GET' | 'DELETE', path: string, params = {}) => {
    try {
      await node.api(method, path, params)
    } catch (fault) {
      if (isFault(fault)) return fault
      throw fault
    }
    throw new assert.AssertionError({ message: `${method} ${path} was not refused` })
  }
  const dhcp =
    'udhcpc -i eth0 -n -q -t 20 -s /etc/udhcpc.sh >/dev/null 2>&1; hostname -i 2>/dev/null; ip -o -4 addr show eth0'

  test('know their name, their limits and their files', async () => {
    assert.equal(await sh(100, 'hostname'), 'first')
    assert.match(await sh(100, 'cat /proc/meminfo'), /^MemTotal: +65536 kB$/m)
    assert.match(await sh(100, 'cat /proc/meminfo'), /^SwapTotal: +0 kB$/m)
    assert.equal(await sh(100, 'nproc'), '1')
    assert.equal(await sh(100, 'grep -c ^processor /proc/cpuinfo'), '1')
    assert.equal(await sh(100, 'id -u; stat -c %u /bin/busybox'), '0\n0')
    assert.equal(await sh(101, 'touch /srv/more/here && ls /srv/more'), 'here')
    // A file system of its own, of the size that was asked for.
    const kilobytes = Number(await sh(101, "df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"))
    assert.ok(kilobytes > 900_000 && kilobytes < 1_100_000, String(kilobytes))
  })

  test('are in every list, with what they use', async () => {
    const all = (await node.api('GET', '/cluster/resources', { type: 'vm' })) as Reply[]
    assert.deepEqual(
      all.map(({ id, type, name, status }) => ({ id, type, name, status })),
      [
        { id: 'lxc/100', type: 'lxc', name: 'first', status: 'running' },
        { id: 'lxc/101', type: 'lxc', name: 'second', status: 'running' },
      ],
    )
    assert.deepEqual(await node.api('GET', `/nodes/${node.settings.node}/qemu`), [])
    const [first] = (await node.api('GET', lxc)) as Reply[]
    assert.equal(first?.maxmem, 64 * MiB)
    assert.equal(first.maxswap, 0)
    const now = await get('101/status/current')
    assert.equal(now.status, 'running')
    assert.equal(now.cpus !== undefined && now.type, 'lxc')
    assert.ok(Number(now.mem) > 0 && Number(now.mem) < 64 * MiB, String(now.mem))
    assert.ok(Number(now.maxdisk) > 900 * MiB && Number(now.disk) > 0)
    await sh(101, 'echo 1 | while read x; do i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; done')
    assert.ok(Number((await get('101/status/current')).cpu) > 0)
  })

  test('are the command line’s too: what runs inside prints here and ends as it ends', async () => {
    const hako = (...args: string[]) =>
      machine().run([process.execPath, ...nodeFlags, program, ...args], {
        env: { ...compiled, HAKO_RUN_DIR: node.settings.runDir, HAKO_NODE: node.settings.node },
        okCodes: [0, 3],
      })
    assert.match((await hako('ct', 'list')).stdout, /^ *100 +first +running/m)
    const { code, stdout, stderr } = await hako('ct', 'exec', '100', '--', 'sh', '-c', 'echo out; echo err >&2; exit 3')
    assert.deepEqual([code, stdout, stderr], [3, 'out\n', 'err\n'])
  })

  test('get an address on their bridge and reach each other there', async () => {
    await Promise.all([sh(100, dhcp), sh(101, dhcp)])
    const [card] = ((await get('101/interfaces')) as unknown as Reply[]).filter(({ name }) => name === 'eth0')
    const address = String(card?.inet).split('/')[0] ?? ''
    assert.match(address, /^10\.181\./)
    const { net0: kept } = await get('101/config')
    assert.equal(String(card?.hwaddr).toUpperCase(), /hwaddr=([0-9A-F:]+)/.exec(String(kept))?.[1])
    await sh(100, `ping -c 1 -W 5 ${address}`)
  })

  test('have an address of the node’s giving where they ask for that', async () => {
    const [, subnet = ''] = /(\d+\.\d+\.\d+)\.\d+\//.exec(await sh(100, 'ip -o -4 addr show eth0')) ?? []
    await make(102, { net0: `${net0},ip=${subnet}.9/24,gw=${subnet}.1,host-managed=1`, start: '1' })
    assert.match(await sh(102, 'ip -o -4 addr show eth0'), new RegExp(`${subnet}\\.9/24`))
    assert.match(await sh(102, 'route -n'), new RegExp(`^0\\.0\\.0\\.0 +${subnet}\\.1 `, 'm'))
    await act(102, 'stop')
    await node.task(await node.api('DELETE', `${lxc}/102`))
  })

  test('take new limits while they run, and keep the rest for the next start', async () => {
    await set(100, { memory: '96', hostname: 'renamed' })
    assert.match(await sh(100, 'cat /proc/meminfo'), /^MemTotal: +98304 kB$/m)
    assert.equal(await sh(100, 'hostname'), 'first')
    const pending = (await get('100/pending')) as unknown as Reply[]
    const of = (key: string) => pending.find((item) => item.key === key)
    assert.deepEqual(of('hostname'), { key: 'hostname', value: 'first', pending: 'renamed' })
    assert.deepEqual(of('memory'), { key: 'memory', value: '96' })
    assert.equal((await get('100/config', { current: '1' })).hostname, 'first')
    await set(100, { revert: 'hostname', memory: '64' })
    assert.equal((await get('100/config')).hostname, 'first')
    const { digest } = await get('100/config')
    await set(100, { description: 'noted' })
    assert.match(
      (await refusal('PUT', `${lxc}/100/config`, { tags: 'x', digest })).message,
      /detected modified configuration/,
    )
  })

  test('grow, and take another mount point at their next start and give it up again', async () => {
    await set(101, { mp1: 'local:0,mp=/new place' })
    // Where a mounted file system may not be grown, it follows its image at the next start.
    const larger = await node.api('PUT', `${lxc}/101/resize`, { disk: 'rootfs', size: '+512M' })
    await node.task(larger, /^(OK|WARNINGS: 1)$/)
    assert.match(String((await get('101/config')).rootfs), /size=1536M/)
    const smaller = await node.api('PUT', `${lxc}/101/resize`, { disk: 'rootfs', size: '1G' })
    await node.task(smaller, /shrinking disks is not supported/)
    await node.task(await node.api('PUT', `${lxc}/101/resize`, { disk: 'mp0', size: '1G' }), /volume|folder|Parameter/)
    await act(101, 'reboot', { timeout: '20' })
    assert.equal(await sh(101, 'touch "/new place/x"; cat /root/starts'), 'xx')
    const kilobytes = Number(await sh(101, "df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"))
    assert.ok(kilobytes > 1_400_000, String(kilobytes))
    await act(101, 'stop')
    await set(101, { delete: 'mp1' })
    const { unused0, mp1 } = await get('101/config')
    assert.match(String(unused0), /^local:101\/subvol-101-disk-\d\.subvol$/)
    assert.equal(mp1, undefined)
    await set(101, { delete: 'unused0' })
    const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
      vmid: '101',
    })) as Reply[]
    assert.deepEqual(content.map(({ volid }) => volid).includes(String(unused0)), false)
    await act(101, 'start')
  })

  test('stand still when suspended', async () => {
    await sh(101, '(while :; do echo x >> /tmp/ticks; done) >/dev/null 2>&1 & sleep 1')
    await act(101, 'suspend')
    const init = Number((await get('101/status/current')).pid)
    const ticks = async () => (await machine().run(['stat', '-c', '%s', `/proc/${init}/root/tmp/ticks`])).stdout
    const first = await ticks()
    assert.match(
      (await refusal('POST', `/hako/containers/${node.settings.node}/101/exec`, { command: ['/bin/true'] })).message,
      /suspended/,
    )
    assert.equal(await ticks(), first)
    await act(101, 'resume')
    await waitFor(async () => (await ticks()) !== first, { what: 'more ticks', timeoutMs: 5_000 })
    await sh(101, 'kill $(ps | grep "[w]hile :" | cut -c1-5) 2>/dev/null; true')
  })

  test('reboot by themselves, and are the same ones', async () => {
    const before = await sh(100, 'cat /root/starts')
    // As a command that is run inside, before it is a process of the container.
    const joining = spawn('sleep', ['1000'], { stdio: 'ignore' })
    const left = once(joining, 'exit')
    const groups = await Cgroups.detect()
    await groups.addProcess(`hakobune-${node.settings.instance}/lxc-100/container`, joining.pid ?? 0)
    await run(100, '/bin/sh', '-c', 'rm -f /tmp/up; kill -TERM 1')
    await waitFor(
      async () =>
        (await run(100, '/bin/cat', '/root/starts').catch(() => undefined))?.['out-data'].trim() === `${before}x`,
      { what: 'the next start', timeoutMs: 20_000, everyMs: 50 },
    )
    assert.equal((await get('100/status/current')).status, 'running')
    assert.match(await sh(100, dhcp), /10\.181\./)
    assert.deepEqual(await left, [null, 'SIGKILL'])
  })

  for (const [what, script] of Object.entries({
    'read the memory of the node': 'cat /dev/mem || { mknod /tmp/mem c 1 1 && cat /tmp/mem; }',
    'read a disk of the node': 'mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk',
    'change a setting of the kernel': 'echo 1 > /proc/sys/kernel/panic || sysctl -w kernel.panic=1',
    'pull the trigger of the kernel': 'echo c > /proc/sysrq-trigger',
    'load a module': 'echo /tmp/x > /proc/sys/kernel/modprobe',
    'mount a disk': 'mount -t ext4 /dev/vda /srv || mount -t ext4 /dev/loop0 /srv',
    'see processes of the node': 'ls /proc | grep -x 2',
    'raise its own limits':
      'echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes || echo max > /sys/fs/cgroup/memory.max',
    'climb out of its root': 'cd /proc/1/root/.. && ls | grep -x lost+found',
    'set the clock': 'date -s 2001-01-01 >/dev/null 2>&1; [ "$(date +%Y)" = 2001 ]',
  })) {
    test(`root inside cannot ${what}`, async () => {
      const { exitcode, 'out-data': out } = await run(100, '/bin/sh', '-c', script)
      assert.notEqual(exitcode, 0, out)
    })
  }

  test('are root’s own when they have no user namespace, and even then have no disk of the node', async () => {
    await make(103, { unprivileged: '0', start: '1' })
    assert.equal((await get('103/config')).unprivileged, 0)
    const { pid } = await get('103/status/current')
    assert.equal((await machine().run(['stat', '-c', '%u', `/proc/${String(pid)}`])).stdout.trim(), '0')
    const { exitcode } = await run(103, '/bin/sh', '-c', 'mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk')
    assert.notEqual(exitcode, 0)
    await act(103, 'stop')
    await node.task(await node.api('DELETE', `${lxc}/103`))
  })

  test('go on without the daemon, which finds them again', async () => {
    const { pid } = await get('100/status/current')
    await node.kill9()
    await node.restart()
    const found = await get('100/status/current')
    assert.deepEqual([found.status, found.pid], ['running', pid])
    assert.equal(await sh(100, 'hostname'), 'first')
    // One that ends while nobody looks is no running one afterwards.
    const other = Number((await get('101/status/current')).pid)
    await node.kill9()
    process.kill(other, 'SIGKILL')
    await node.restart()
    assert.equal((await get('101/status/current')).status, 'stopped')
    await act(101, 'start')
    assert.equal(await sh(101, 'hostname'), 'second')
  })

  test('have a terminal of the wanted size', async () => {
    await set(100, { cmode: 'shell' })
    setDefaultCACertificates([await readFile(join(node.settings.stateDir, 'keys/tls.pem'), 'utf8')])
    const session = await rootSession(node)
    const opened = (await node.api('POST', `${lxc}/100/termproxy`)) as unknown as Opened
    const place = `${node.url.replace('https', 'wss')}/api2/json${lxc}/100/vncwebsocket?port=${opened.port}&vncticket=${encodeURIComponent(opened.ticket)}`
    const terminal = await terminalAt(place, session.ticket, opened)
    await terminal.until(/^OK[^]*# /)
    terminal.send('1:101:33:')
    terminal.type('echo I am on $(hostname); stty size\n')
    await terminal.until(/I am on first[^]*33 101/)
    terminal.close()
  })

  test('are refused, named and whole, when asked for what cannot be', async () => {
    const create = (params: Record<string, string>) =>
      refusal('POST', lxc, { vmid: '110', ostemplate: template, rootfs: 'local:0', ...params })
    assert.match((await create({ vmid: '100' })).message, /CT 100 already exists/)
    const twice = await create({ net0: 'name=eth0', net1: 'name=eth0' })
    assert.match(twice.fields?.net1 ?? '', /name of net0 already/)
    assert.match((await create({ mp0: 'local:1,mp=/../etc' })).fields?.mp0 ?? '', /'\.\.'/)
    assert.match((await create({ features: 'mknod=1' })).fields?.features ?? '', /mknod: nobody in a user namespace/)
    assert.match(
      (await refusal('GET', `/nodes/${node.settings.node}/qemu/100/config`)).message,
      /qemu-server\/100\.conf' does not exist/,
    )
    assert.match((await refusal('POST', `/nodes/${node.settings.node}/qemu/100/status/stop`)).message, /does not exist/)
    const failing = async (params: Record<string, string>, sign: RegExp) => {
      const task = await node.api('POST', lxc, { vmid: '110', ostemplate: template, rootfs: 'local:0', ...params })
      await node.task(task, sign)
      assert.match((await refusal('GET', `${lxc}/110/config`)).message, /lxc\/110\.conf' does not exist/)
    }
    await failing({ mp0: 'nowhere:1,mp=/srv' }, /storage 'nowhere' does not exist/)
    await failing({ ostemplate: 'local:vztmpl/absent.tar.gz' }, /does not exist/)
    const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
      vmid: '110',
    })) as Reply[]
    assert.deepEqual(content, [])
  })

  test('are made from others, and are nobody’s twin', async () => {
    await node.task(await node.api('POST', `${lxc}/101/clone`, { newid: '105' }), /full clones on a running container/)
    await sh(101, 'echo kept > /srv/more/note; ln /bin/busybox /root/again')
    await act(101, 'stop')
    await node.task(await node.api('POST', `${lxc}/101/clone`, { newid: '105', hostname: 'twin' }))
    await Promise.all([act(101, 'start'), act(105, 'start')])
    assert.equal(await sh(105, 'hostname; cat /srv/more/note; stat -c "%u %h" /bin/busybox'), 'twin\nkept\n0 2')
    const mac = async (vmid: number) => /hwaddr=([0-9A-F:]+)/.exec(String((await get(`${vmid}/config`)).net0))?.[1]
    assert.notEqual(await mac(105), await mac(101))
    await act(105, 'stop')
    await node.task(await node.api('DELETE', `${lxc}/105`))
  })

  test('are made as templates, which do not run and are cloned from', async () => {
    const asTemplate = { template: '1', net0 }
    assert.match(
      (await refusal('POST', lxc, { vmid: '106', ostemplate: template, ...asTemplate, start: '1' })).fields?.start ??
        '',
      /does not run/,
    )
    await make(106, asTemplate)
    const { template: isTemplate, rootfs } = await get('106/config')
    assert.equal(isTemplate, 1)
    assert.match(String(rootfs), /local:106\/basevol-106-disk-0\.subvol/)
    await node.task(await node.api('POST', `${lxc}/106/clone`, { newid: '107', hostname: 'linked' }))
    await act(107, 'start')
    assert.equal(await sh(107, 'hostname'), 'linked')
    await act(107, 'stop')
    for (const vmid of [107, 106]) await node.task(await node.api('DELETE', `${lxc}/${vmid}`))
  })

  test('leave nothing behind when they are destroyed', async () => {
    assert.match((await refusal('DELETE', `${lxc}/100`, { force: '1' })).fields?.force ?? '', /runs/)
    await node.task(await node.api('DELETE', `${lxc}/100`), /CT 100 is running - destroy failed/)
    await act(100, 'shutdown', { timeout: '20' })
    for (const vmid of [100, 101]) {
      await act(vmid, 'stop')
      await node.task(await node.api('DELETE', `${lxc}/${vmid}`))
    }
    assert.deepEqual(await node.api('GET', '/cluster/resources', { type: 'vm' }), [])
    const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`)) as Reply[]
    assert.deepEqual(
      content.map(({ volid }) => volid),
      [template],
    )
    const { stdout } = await machine().run([
      'find',
      join(node.settings.runDir, 'guests'),
      join(node.settings.runDir, 'mounts'),
    ])
    assert.doesNotMatch(stdout, /\/10[01]/)
  })
})
