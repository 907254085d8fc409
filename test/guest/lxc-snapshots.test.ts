/** Snapshots, templates, clones and moved volumes of containers, asked from inside. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { type BtrfsDisk, btrfsDisk } from '../fixtures/btrfs-disk.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('containers made from others', { timeout: 120_000 }, () => {
  let node: TestNode
  let disk: BtrfsDisk | undefined
  let lxc: string
  before(async () => {
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    await offerTemplate(node.settings)
    await make(100, { start: '1', mp0: 'local:0,mp=/srv/data' })
    await sh(100, 'echo original > /root/note; mkdir /root/folder; echo x > /root/folder/x; echo data > /srv/data/d')
  })
  after(async () => {
    await node[Symbol.asyncDispose]()
    await disk?.[Symbol.asyncDispose]()
  })

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
        ['local:100/basevol-100-disk-0.subvol/101/subvol-101-disk-0.subvol', 'c101', 0],
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
        (await refusal('POST', '100/move_volume', { volume: 'rootfs', storage: 'other' })).message,
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

  suite('on btrfs', () => {
    const list = async () => (await node.api('GET', `${lxc}/200/snapshot`)) as Reply[]
    before(async () => {
      disk = await btrfsDisk(256 * MiB)
      const pool = { storage: 'pool', type: 'btrfs', path: disk.path, content: 'images,rootdir' }
      await node.api('POST', '/storage', pool)
      await make(200, { rootfs: 'pool:0.05', mp0: 'pool:0,mp=/srv/data,backup=0', start: '1' })
    })

    test('a snapshot of one that runs is taken while it is held, and it goes on', async () => {
      await sh(200, 'echo kept > /root/note; echo kept > /srv/data/note')
      assert.equal(await feature(200, 'snapshot'), 1)
      const { log } = await post('200/snapshot', { snapname: 'before', description: 'with the note' })
      assert.match(log, /the container was held for \d+ ms/)
      assert.equal(await sh(200, 'cat /root/note'), 'kept')
      const [taken, now, ...rest] = await list()
      const { snaptime, ...facts } = taken ?? {}
      assert.deepEqual([facts, rest], [{ name: 'before', description: 'with the note' }, []])
      assert.ok(Math.abs(Number(snaptime) - Date.now() / 1000) < 600)
      const { digest, ...current } = now ?? {}
      assert.deepEqual(current, { name: 'current', description: 'You are here!', running: 1, parent: 'before' })
      assert.equal(digest, (await config(200)).digest)
      await node.api('PUT', `${lxc}/200/snapshot/before/config`, { description: 'renamed' })
      const kept = (await node.api('GET', `${lxc}/200/snapshot/before/config`)) as Reply
      assert.deepEqual(
        [kept.rootfs, kept.description, kept.snaptime],
        [(await config(200)).rootfs, 'renamed', snaptime],
      )
    })

    test('a rollback brings files and settings home, and keeps later volumes as unused', async () => {
      await node.api('PUT', `${lxc}/200/config`, { memory: '80', mp1: 'pool:0,mp=/srv/later' })
      await sh(200, 'rm /root/note /srv/data/note; echo later > /root/later')
      await post('200/snapshot/before/rollback', { start: '1' })
      assert.equal(await sh(200, 'cat /root/note /srv/data/note; ls /root'), 'kept\nkept\nnote')
      const { memory, mp1, unused0, parent } = await config(200)
      assert.deepEqual([memory, mp1, parent], [64, undefined, 'before'])
      assert.match(String(unused0), /^pool:200\/subvol-200-disk-2/)
    })

    test('a copy of one that runs, and of its snapshot, is as that moment was', async () => {
      await sh(200, 'echo now > /root/note')
      const { log } = await post('200/clone', { newid: '201', hostname: 'copy' })
      assert.match(log, /the container was held/)
      await post('200/clone', { newid: '202', hostname: 'older', snapname: 'before', storage: 'local' })
      await Promise.all([post('201/status/start'), post('202/status/start')])
      assert.equal(await sh(201, 'hostname; cat /root/note /srv/data/note'), 'copy\nnow\nkept')
      assert.equal(
        await sh(202, 'hostname; cat /root/note /srv/data/note; stat -c %u /bin/busybox'),
        'older\nkept\nkept\n0',
      )
      assert.deepEqual(
        (await list()).map(({ name }) => name),
        ['before', 'current'],
      )
      await Promise.all([remove(201), remove(202)])
    })

    test('what a snapshot needs stays, and goes with it', async () => {
      await node.api('PUT', `${lxc}/200/config`, { delete: 'mp0' })
      await post('200/status/reboot')
      const { unused1 } = await config(200)
      assert.match(String(unused1), /disk-1/)
      assert.match(
        (await refusal('PUT', '200/config', { delete: 'unused1' })).message,
        /still in use \(snapshot 'before'\)/,
      )
      await node.task(await node.api('DELETE', `${lxc}/200/snapshot/before`))
      await node.api('PUT', `${lxc}/200/config`, { delete: 'unused0,unused1' })
      const pool = await readdir(join(disk?.path ?? '', 'images/200'))
      assert.deepEqual(pool, ['subvol-200-disk-0.subvol'])
    })

    test('a folder is held to its size, and may be given more while it is in use', async () => {
      const write = (megabytes: number) => `dd if=/dev/urandom of=/root/big bs=1M count=${megabytes}`
      await assert.rejects(sh(200, write(60)), /quota exceeded/i)
      await sh(200, 'rm /root/big; sync')
      await node.task(await node.api('PUT', `${lxc}/200/resize`, { disk: 'rootfs', size: '100M' }))
      assert.match(String((await config(200)).rootfs), /,size=100M/)
      await sh(200, write(60))
      await sh(200, 'rm /root/big')
    })

    test('what cannot be kept is refused, in the words clients know', async () => {
      for (const [method, path] of [
        ['DELETE', 'snapshot/gone'],
        ['POST', 'snapshot/gone/rollback'],
        ['GET', 'snapshot/gone/config'],
      ] as const) {
        assert.match((await refusal(method, `200/${path}`)).message, /^snapshot 'gone' does not exist/)
      }
      await node.api('PUT', `${lxc}/200/config`, { mp0: '/srv,mp=/srv/data' })
      const bound = await refusal('POST', '200/snapshot', { snapname: 'one' })
      assert.equal(bound.message, 'snapshot feature is not available')
      assert.match(bound.remedy ?? '', /'mp0' is a folder of the node/)
      await node.api('PUT', `${lxc}/200/config`, { mp0: 'local:0,mp=/srv/data' })
      assert.match(
        (await refusal('POST', '200/snapshot', { snapname: 'one' })).message,
        /^snapshot feature is not available/,
      )
      assert.equal(await feature(200, 'snapshot'), 0)
    })

    test('a volume moves to another storage and back, and holds what it held', async () => {
      await post('200/status/reboot')
      await sh(200, 'echo moved > /srv/data/note; ln /srv/data/note /srv/data/again')
      const move = (params: Record<string, string>) => refusal('POST', '200/move_volume', params)
      assert.match(
        (await move({ volume: 'mp0', storage: 'pool' })).message,
        /cannot move volumes of a running container/,
      )
      await post('200/status/stop')
      assert.match(
        (await move({ volume: 'mp0', storage: 'local' })).message,
        /can't move to the same storage with same format/,
      )
      assert.match((await move({ volume: 'mp3', storage: 'pool' })).message, /volume 'mp3' does not exist/)
      assert.match(
        (await move({ volume: 'mp0', storage: 'pool', digest: 'x' })).message,
        /detected modified configuration/,
      )
      await post('200/move_volume', { volume: 'mp0', storage: 'pool', delete: '1' })
      await post('200/move_volume', { volume: 'rootfs', storage: 'local' })
      const { rootfs, mp0, unused0 } = await config(200)
      assert.match(String(mp0), /^pool:200\/subvol-200-disk-\d\.subvol,mp=\/srv\/data$/)
      assert.match(String(rootfs), /^local:200\/vm-200-disk-0\.raw,size=/)
      assert.match(String(unused0), /^pool:200\/subvol-200-disk-0/)
      await post('200/status/start')
      assert.equal(
        await sh(200, 'cat /root/note; stat -c "%h %u" /srv/data/note; cat /srv/data/again'),
        'now\n2 0\nmoved',
      )
    })

    test('a volume is given to another container, which finds in it what was there', async () => {
      await make(203, {})
      const give = (params: Record<string, string>) =>
        refusal('POST', '200/move_volume', { volume: 'mp0', 'target-vmid': '203', ...params })
      assert.match((await give({})).message, /cannot move volumes of a running container/)
      await post('200/status/stop')
      assert.match((await give({ 'target-volume': 'rootfs' })).fields?.['target-volume'] ?? '', /has its rootfs/)
      const unplaced = await give({ volume: 'unused0', 'target-volume': 'mp4' })
      assert.match(unplaced.fields?.['target-volume'] ?? '', /has no place there/)
      await post('200/move_volume', { volume: 'mp0', 'target-vmid': '203', 'target-volume': 'mp4' })
      assert.equal((await config(200)).mp0, undefined)
      assert.match(String((await config(203)).mp4), /^pool:203\/subvol-203-disk-\d\.subvol,mp=\/srv\/data$/)
      await post('203/status/start')
      assert.equal(await sh(203, 'cat /srv/data/note'), 'moved')
      await Promise.all([remove(200), remove(203)])
      assert.deepEqual(await readdir(join(disk?.path ?? '', 'images')), [])
    })
  })
})
