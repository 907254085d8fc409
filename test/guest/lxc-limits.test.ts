/** Containers that want more than they may have, and what tells them how much that is. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { offerTemplate } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

suite('containers are held to their limits', { timeout: 120_000 }, () => {
  let node: TestNode
  let lxc: string
  before(async () => {
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    await offerTemplate(node.settings)
    const common = { ostemplate: 'local:vztmpl/busybox.tar.gz', rootfs: 'local:0', memory: '64', start: '1' }
    for (const vmid of ['100', '101']) await node.task(await node.api('POST', lxc, { ...common, vmid }))
  })
  after(() => node[Symbol.asyncDispose]())

  const act = async (vmid: number, verb: string, params = {}) =>
    node.task(await node.api('POST', `${lxc}/${vmid}/status/${verb}`, params))
  const statusOf = async (vmid: number) =>
    ((await node.api('GET', `${lxc}/${vmid}/status/current`)) as { status: string }).status
  const set = (vmid: number, params: Record<string, string>) => node.api('PUT', `${lxc}/${vmid}/config`, params)
  const run = async (vmid: number, ...command: string[]) =>
    (await node.api('POST', `/hako/containers/${node.settings.node}/${vmid}/exec`, { command })) as {
      exitcode: number
      'out-data': string
    }
  const sh = async (vmid: number, script: string) => {
    const { exitcode, 'out-data': out } = await run(vmid, '/bin/sh', '-c', script)
    assert.equal(exitcode, 0, `${script}: ${out}`)
    return out.trimEnd()
  }
  /** What the kernel says of the group that has the limits of a container. */
  const ofGroup = async (vmid: number, controller: string, file: string): Promise<string> => {
    const group = join(`hakobune-${node.settings.instance}`, `lxc-${vmid}`, 'container')
    const old = join('/sys/fs/cgroup', controller, group)
    return readFile(join(existsSync(old) ? old : join('/sys/fs/cgroup', group), file), 'utf8')
  }
  const counted = (text: string, name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0)
  /** How long the neighbour takes for an answer, the longest of a few. */
  const neighbourMs = async () => {
    const took: number[] = []
    for (let round = 0; round < 5; round += 1) {
      const asked = performance.now()
      assert.equal(await sh(100, 'cat /tmp/neighbour'), ':')
      took.push(performance.now() - asked)
    }
    assert.equal(await statusOf(100), 'running')
    return Math.max(...took)
  }

  test('a hog of memory in one is held, and its neighbour keeps answering', async () => {
    await sh(100, 'echo : > /tmp/neighbour')
    // How often it wanted more than it may have.
    const refused = async () =>
      existsSync('/sys/fs/cgroup/memory')
        ? Number(await ofGroup(101, 'memory', 'memory.failcnt'))
        : counted(await ofGroup(101, 'memory', 'memory.events'), 'max')
    const [before, eaten] = [await refused(), run(101, '/bin/sh', '-c', 'head -c 300m /dev/zero | tail | wc -c')]
    const answered = await neighbourMs()
    assert.doesNotMatch((await eaten)['out-data'], /^31/)
    assert.ok((await refused()) > before, 'the limit was not reached')
    assert.ok(answered < 3_000, String(answered))
  })

  test('a fork bomb and hogs of processors in one are held, and its neighbour keeps answering', async () => {
    // Memory for as many processes as there may be: it is their number that ends the bomb.
    await set(101, { cpulimit: '0.5', memory: '1024' })
    const hogs = 'for i in 1 2 3 4; do yes > /dev/null & done'
    await sh(101, `cat > /tmp/bomb << E\nbomb() { bomb | bomb & }\nbomb\nE\n(${hogs}; sh /tmp/bomb) >/dev/null 2>&1 &`)
    // The kernel counts them where the process is that may not fork (in the old hierarchy), or where the limit is.
    const events = existsSync('/sys/fs/cgroup/pids') ? 'inside/pids.events' : 'pids.events'
    const refusedForks = async () => counted(await ofGroup(101, 'pids', events), 'max')
    const throttled = async () => counted(await ofGroup(101, 'cpu', 'cpu.stat'), 'nr_throttled')
    await waitFor(async () => (await refusedForks()) > 0, { what: 'the limit of processes', timeoutMs: 30_000 })
    const [forks, throttles] = [await refusedForks(), await throttled()]
    const answered = await neighbourMs()
    assert.ok((await throttled()) > throttles, 'nobody was kept from a processor')
    assert.ok(answered < 3_000, String(answered))
    assert.ok((await refusedForks()) >= forks && (await throttled()) > 0)
    await act(101, 'stop')
    assert.equal(await statusOf(101), 'stopped')
  })

  test('are told of their limits by one process that is nobody’s, and again when that has died', async () => {
    const served = join(node.settings.runDir, 'lxcfs')
    const pid = async () => Number(await readFile(join(served, 'pid'), 'utf8'))
    const first = await pid()
    assert.match(
      await readFile(`/proc/${first}/cgroup`, 'utf8'),
      new RegExp(`/hakobune-${node.settings.instance}/lxcfs$`, 'm'),
    )
    await node.kill9()
    assert.match(await readFile(`/proc/${first}/comm`, 'utf8'), /lxcfs/)
    await node.restart()
    assert.equal(await pid(), first)
    process.kill(first, 'SIGKILL')
    assert.notEqual((await run(100, '/bin/cat', '/proc/meminfo')).exitcode, 0)
    const isServed = async () =>
      (await readFile(join(served, 'fs/proc/meminfo'), 'utf8').catch(() => '')).startsWith('MemTotal')
    await waitFor(isServed, { what: 'the next lxcfs', timeoutMs: 20_000 })
    assert.notEqual(await pid(), first)
    await act(100, 'reboot', { timeout: '20' })
    assert.match(await sh(100, 'cat /proc/meminfo'), /^MemTotal: +65536 kB$/m)
  })
})
