/**
 * What root of one container tries on another, which has a secret. It is told everything the node knows of the other one:
 * pids, paths, names, addresses. Each attempt is a script that works where it is allowed to: there it is run first.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { ownBridge } from '../../src/settings.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const secret = 'sesame-0451'
const socketName = 'hako-test-secret'
const [victim, peer] = ['10.99.7.1', '10.99.7.3']

interface Attempt {
  readonly script: string
  /** What does the same on the node, or `victim`, where it works as it is. Default: it works on the node as it is. */
  readonly where?: string
}

interface Told {
  /** Of its init, as the node counts. */
  readonly pid: number
  readonly rootfs: string
  readonly image: string
  readonly guestsDir: string
  readonly bridge: string
}

const attempts: Readonly<Record<string, (told: Told) => Attempt>> = {
  'read its files where the node has them': ({ rootfs }) => ({ script: `grep ${secret} ${rootfs}/root/secret` }),
  'read its files through its processes': ({ pid }) => ({ script: `grep ${secret} /proc/${pid}/root/root/secret` }),
  'read the image of its mount point': ({ image }) => ({ script: `head -c 1 ${image}` }),
  'read its configuration': ({ guestsDir }) => ({ script: `cat ${guestsDir}/101/config` }),
  'see its processes': () => ({ script: `grep -qa '98[7]65' /proc/[0-9]*/cmdline` }),
  'look into the memory of its processes': ({ pid }) => ({ script: `head -c 1 /proc/${pid}/auxv` }),
  'signal its processes': ({ pid }) => ({ script: `kill -0 ${pid}` }),
  'enter its namespaces': ({ pid }) => ({
    script: `busybox nsenter -t ${pid} -m /bin/busybox grep ${secret} /root/secret`,
  }),
  'find its control group': () => ({ script: `ls -R /sys/fs/cgroup | grep -q lxc-101` }),
  'find its control group by mounting the tree anew': () => ({
    script: `mkdir -p /tmp/tree && { mount -t cgroup -o pids none /tmp/tree || mount -t cgroup2 none /tmp/tree; } 2>/dev/null &&
      ls -R /tmp/tree | grep -q lxc-101; found=$?; umount /tmp/tree 2>/dev/null; exit $found`,
  }),
  'find the socket LXC is told by': ({ guestsDir }) => ({
    script: `grep -q '@.*${guestsDir}/101/command' /proc/net/unix`,
  }),
  'see its abstract sockets': () => ({ script: `grep -q @${socketName} /proc/net/unix`, where: 'victim' }),
  'see its shared memory': () => ({ script: `grep ${secret} /dev/shm/secret`, where: 'victim' }),
  'see its end of its cable': () => ({ script: `ip link show dev eth1`, where: 'victim' }),
  'send its card there': ({ pid }) => ({
    script: `ip link set dev eth0 netns ${pid}`,
    where: `ip link add hk${pid}a type veth peer name hk${pid}b && ip link set dev hk${pid}a netns ${pid}; there=$?
      ip link delete dev hk${pid}b; exit $there`,
  }),
  'reach it on a bridge of its own': ({ bridge }) => ({
    script: `ip addr add ${peer}/24 dev eth0; ip link set dev eth0 up; ping -c 1 -W 1 ${victim}`,
    where: `ip addr add ${peer}/24 dev ${bridge} && busybox ping -c 1 -W 5 ${victim}; there=$?
      ip addr delete ${peer}/24 dev ${bridge}; exit $there`,
  }),
}

suite('root inside one container', { timeout: 120_000 }, () => {
  let node: TestNode
  let told: Told
  const undo = new AsyncDisposableStack()
  before(async () => {
    node = undo.use(await nodeUnderTest())
    await offerTemplate(node.settings)
    const bridge = `${ownBridge(node.settings)}z`
    const ip = (...words: string[]) => machine().run(['ip', ...words])
    await ip('link', 'add', 'name', bridge, 'type', 'bridge')
    undo.defer(async () => void (await ip('link', 'delete', 'dev', bridge)))
    await ip('link', 'set', 'dev', bridge, 'up')
    const net0 = `name=eth0,bridge=${ownBridge(node.settings)}`
    const common = { ostemplate: template, rootfs: 'local:0', memory: '64', start: '1', net0 }
    const make = async (params: Record<string, string>) =>
      node.task(await node.api('POST', `/nodes/${node.settings.node}/lxc`, { ...common, ...params }))
    await make({ vmid: '100' })
    const own = { net1: `name=eth1,bridge=${bridge},ip=${victim}/24,host-managed=1`, mp0: 'local:1,mp=/srv' }
    await make({ vmid: '101', ...own })
    await sh(
      101,
      `echo ${secret} > /root/secret; echo ${secret} > /srv/secret; mkdir -p /dev/shm; echo ${secret} > /dev/shm/secret; (sleep 98765 >/dev/null 2>&1 &)`,
    )
    const { pid } = (await node.api('GET', `/nodes/${node.settings.node}/lxc/101/status/current`)) as { pid: number }
    const images = join(node.settings.stateDir, 'storage/local/images/101')
    told = {
      pid,
      rootfs: join(images, 'subvol-101-disk-0.subvol'),
      image: join(images, 'vm-101-disk-0.raw'),
      guestsDir: join(node.settings.runDir, 'guests'),
      bridge,
    }
    await listenIn(pid)
  })
  after(() => undo.disposeAsync())

  const run = async (vmid: number, script: string) =>
    (await node.api('POST', `/hako/containers/${node.settings.node}/${vmid}/exec`, {
      command: ['/bin/busybox', 'sh', '-c', script],
    })) as { exitcode: number; 'out-data': string; 'err-data': string }
  const sh = async (vmid: number, script: string) => {
    const { exitcode, 'out-data': out, 'err-data': err } = await run(vmid, script)
    assert.equal(exitcode, 0, `${script}: ${out}${err}`)
    return out.trimEnd()
  }
  /** On the node, where what is mounted or plugged in for it is gone with it. */
  const onNode = (script: string) => machine().run(['unshare', '--mount', 'sh', '-c', script], { okCodes: [0, 1, 2] })

  /** A socket without a file, in the network of that process. */
  async function listenIn(pid: number): Promise<void> {
    const script = `require('node:net').createServer().listen('\\0${socketName}')`
    const child = spawn('nsenter', [`--net=/proc/${pid}/ns/net`, process.execPath, '-e', script], { stdio: 'ignore' })
    undo.defer(async () => {
      if (child.exitCode === null && child.kill('SIGKILL')) await once(child, 'exit')
    })
    const isThere = async () => (await run(101, `grep -q @${socketName} /proc/net/unix`)).exitcode === 0
    await waitFor(isThere, { what: 'the socket', timeoutMs: 20_000 })
  }

  for (const [what, attemptOn] of Object.entries(attempts)) {
    test(`cannot, of another, ${what}`, async () => {
      const { script, where = script } = attemptOn(told)
      if (where === 'victim') await sh(101, script)
      else {
        const { code, stderr } = await onNode(where)
        assert.equal(code, 0, `what is tried works nowhere: ${stderr}`)
      }
      const { exitcode, 'out-data': out, 'err-data': err } = await run(100, script)
      assert.notEqual(exitcode, 0, out)
      assert.doesNotMatch(err, /not found|Usage:/, 'it was not even tried')
      assert.doesNotMatch(out, new RegExp(secret))
    })
  }

  test('has left nothing of the other one changed', async () => {
    assert.equal(await sh(101, 'cat /root/secret /srv/secret /dev/shm/secret'), [secret, secret, secret].join('\n'))
    const { pid } = (await node.api('GET', `/nodes/${node.settings.node}/lxc/101/status/current`)) as { pid: number }
    assert.equal(pid, told.pid)
  })
})
