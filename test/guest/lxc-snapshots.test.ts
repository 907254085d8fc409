/** Snapshots, templates, clones and moved volumes of containers, asked from inside. */
import assert from 'node:assert/strict'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { mountPoints } from '#host/mount.ts'
import { writeTemplate } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>
const template = 'local:vztmpl/busybox.tar.gz'

suite('containers made from others', { timeout: 120_000 }, () => {
  let node: TestNode
  let lxc: string
  before(async () => {
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    const folder = join(node.settings.stateDir, 'storage/local/template/cache')
    await mkdir(folder, { recursive: true })
    await writeTemplate(join(folder, 'busybox.tar.gz'))
    await make(100, { start: '1', mp0: 'local:0,mp=/srv/data' })
    await sh(100, 'echo original > /root/note; mkdir /root/folder; echo x > /root/folder/x; echo data > /srv/data/d')
  })
  after(() => node[Symbol.asyncDispose]())

  const make = async (vmid: number, options: Record<string, string>) => {
    const wish = { vmid: String(vmid), ostemplate: template, rootfs: 'local:0', memory: '64', entrypoint: '/etc/quick' }
    await node.task(await node.api('POST', lxc, { ...wish, ...options }))
  }
  const post = async (path: string, params: Record<string, string> = {}, end?: RegExp) =>
    node.task(await node.api('POST', `${lxc}/${path}`, params), end)
  const config = async (vmid: number) => (await node.api('GET', `${lxc}/${vmid}/config`)) as Reply
  const sh = async (vmid: number, script: string) => {
    const command = ['/bin/sh', '-c', script]
    const reply = await node.api('POST', `/hako/containers/${node.settings.node}/${vmid}/exec`, { command })
    const { exitcode, 'out-data': out, 'err-data': err } = reply as Record<string, string>
    assert.equal(Number(exitcode), 0, `${script}: ${out}${err}`)
    return String(out).trimEnd()
  }
  const feature = async (vmid: number, name: string) =>
    ((await node.api('GET', `${lxc}/${vmid}/feature`, { feature: name })) as Reply).hasFeature
  const refusal = async (method: 'POST' | 'PUT' | 'GET' | 'DELETE', path: string, params = {}) => {
    try {
      await node.api(method, `${lxc}/${path}`, params)
    } catch (fault) {
      if (isFault(fault)) return fault
      throw fault
    }
    throw new assert.AssertionError({ message: `${method} ${path} was not refused` })
  }
  const remove = async (vmid: number) => {
    await post(`${vmid}/status/stop`)
    await node.task(await node.api('DELETE', `${lxc}/${vmid}`))
  }
  const isTemplate = async (vmid: number) => (await config(vmid)).template === 1

  suite('linked to a template on a folder', () => {
    before(async () => {
      assert.match(
        (await refusal('POST', '100/template')).message,
        /can't convert a CT to template if the CT is running/,
      )
      await post('100/status/stop')
      assert.equal(await node.api('POST', `${lxc}/100/template`), null)
      await waitFor(() => isTemplate(100), { what: 'the template', timeoutMs: 10_000 })
      for (const newid of ['101', '102']) await post('100/clone', { newid, hostname: `c${newid}` })
      await Promise.all([post('101/status/start'), post('102/status/start')])
    })

    test('hold only what differs, and have names of their own', async () => {
      const { rootfs, hostname, template: isOne } = await config(101)
      assert.deepEqual(
        [rootfs, hostname, isOne],
        ['local:100/basevol-100-disk-0.subvol/101/subvol-101-disk-0.subvol', 'c101', undefined],
      )
      assert.equal(
        await sh(101, 'hostname; cat /root/note /srv/data/d; stat -c %u /bin/busybox'),
        'c101\noriginal\ndata\n0',
      )
      const own = join(node.settings.stateDir, 'storage/local/images/101')
      const { stdout } = await machine().run(['find', own, '-name', 'busybox'])
      assert.equal(stdout, '')
    })

    test('what one writes, changes and removes is seen by nobody else', async () => {
      await sh(
        101,
        'echo changed > /root/note; rm -r /root/folder; mkdir /root/folder; echo new > /srv/data/new; rm /srv/data/d',
      )
      assert.equal(
        await sh(101, 'cat /root/note; ls /root/folder /srv/data'),
        'changed\n/root/folder:\n\n/srv/data:\nnew',
      )
      assert.equal(await sh(102, 'cat /root/note /root/folder/x; ls /srv/data'), 'original\nx\nd')
      const base = join(node.settings.stateDir, 'storage/local/images/100/basevol-100-disk-0.subvol/root')
      assert.deepEqual((await readdir(base)).toSorted(), ['folder', 'note'])
      // A name that was removed stays so over the next start.
      await post('101/status/stop')
      await post('101/status/start')
      assert.equal(await sh(101, 'cat /root/note; ls -A /root/folder; ls /srv/data'), 'changed\nnew')
    })

    test('run on without the daemon, and leave no mount behind when they end', async () => {
      const mounts = async () =>
        (await mountPoints()).filter((path) => path.startsWith(`${node.settings.runDir}/mounts/101/`))
      assert.equal((await mounts()).length, 2)
      await node.kill9()
      await node.restart()
      assert.equal(await sh(101, 'cat /root/note'), 'changed')
      assert.equal(await sh(102, 'cat /root/note'), 'original')
      const { pid } = (await node.api('GET', `${lxc}/101/status/current`)) as Reply
      await node.kill9()
      process.kill(Number(pid), 'SIGKILL')
      await node.restart()
      assert.deepEqual(await mounts(), [])
      await post('101/status/start')
      assert.equal(await sh(101, 'cat /root/note'), 'changed')
    })

    test('the template does not start, and stays while anybody needs it', async () => {
      assert.equal(await feature(100, 'clone'), 1)
      assert.equal(await feature(101, 'clone'), 0)
      await post('100/status/start', {}, /can't start a ct if it's a template/)
      await node.task(await node.api('DELETE', `${lxc}/100`), /still in use by linked clone/)
      assert.match((await refusal('POST', '100/template')).message, /can't convert a template to a template/)
      assert.match(
        (await refusal('POST', '100/snapshot', { snapname: 'one' })).message,
        /if it is a template \(CT 100\)/,
      )
      assert.match(
        (await refusal('POST', '100/move_volume', { volume: 'rootfs', storage: 'x' })).message,
        /of a template cannot be moved/,
      )
      const linked = { newid: '103', storage: 'local' }
      assert.match((await refusal('POST', '100/clone', linked)).fields?.storage ?? '', /not allowed for linked clones/)
      assert.match(
        (await refusal('POST', '101/clone', { newid: '103', full: '0' })).message,
        /Linked clone feature .* not available/,
      )
    })

    test('a full clone of one stands on its own', async () => {
      await post('101/clone', { newid: '103' }, /Cannot do full clones on a running container without snapshots/)
      await post('101/status/stop')
      await post('101/clone', { newid: '103', hostname: 'whole' })
      await post('100/clone', { newid: '104', full: '1' })
      await Promise.all([remove(101), remove(102)])
      await node.task(await node.api('DELETE', `${lxc}/100`))
      await Promise.all([post('103/status/start'), post('104/status/start')])
      assert.equal(await sh(103, 'hostname; cat /root/note; ls -A /root/folder; ls /srv/data'), 'whole\nchanged\nnew')
      assert.equal(await sh(104, 'hostname; cat /root/note /srv/data/d'), 'Copy-of-CT100\noriginal\ndata')
      await Promise.all([remove(103), remove(104)])
    })
  })
})
