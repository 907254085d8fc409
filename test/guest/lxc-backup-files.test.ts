/** Backups of containers as clients meet them: by a job, listed, looked into, fetched from, restored. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { compiled } from '../compiled.ts'
import { offerTemplate } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { rootSession } from './console-client.ts'

type Reply = Record<string, unknown>

const program = join(import.meta.dirname, '../../src/cli/main.ts')
const host = machine()

suite('backups of containers, as clients meet them', { timeout: 180_000 }, () => {
  let node: TestNode
  let scratch: string
  let lxc: string
  let storage: string
  let volid: string
  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'hako-backup-files-'))
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    storage = `/nodes/${node.settings.node}/storage/local`
    await offerTemplate(node.settings)
    const mounts = { rootfs: 'local:0', mp0: 'local:0,mp=/srv/more,backup=1' }
    const params = { vmid: '100', ostemplate: 'local:vztmpl/busybox.tar.gz', hostname: 'web', memory: '64', start: '1' }
    await node.task(await node.api('POST', lxc, { ...params, ...mounts }))
    await sh(
      'mkdir -p /root/wäre && echo first > /root/wäre/note && ln -s note /root/wäre/link && ln /root/wäre/note /root/same' +
        ' && dd if=/dev/urandom of=/root/random bs=1000 count=700 2>/dev/null && echo more > /srv/more/file',
    )
  })
  after(async () => {
    await node[Symbol.asyncDispose]()
    await rm(scratch, { recursive: true, force: true })
  })

  const sh = async (script: string, vmid = 100) => {
    const ran = (await node.api('POST', `/hako/containers/${node.settings.node}/${vmid}/exec`, {
      command: ['/bin/sh', '-c', script],
    })) as Reply
    assert.equal(ran.exitcode, 0, `${script}: ${String(ran['out-data'])}${String(ran['err-data'])}`)
    return String(ran['out-data']).trimEnd()
  }
  const backups = async () => (await node.api('GET', `${storage}/content`, { content: 'backup' })) as Reply[]
  const list = async (filepath: string, volume = volid) =>
    (await node.api('GET', `${storage}/file-restore/list`, { volume, filepath })) as Reply[]
  const base64 = (path: string) => Buffer.from(path).toString('base64')
  /** From outside, through the front. */
  const download = async (path: string, more = ''): Promise<Buffer> => {
    const { ticket } = await rootSession(node)
    const query = `volume=${encodeURIComponent(volid)}&filepath=${encodeURIComponent(base64(`/root.pxar.didx${path}`))}`
    const place = `${node.url}/api2/json${storage}/file-restore/download?${query}${more}`
    await host.run(['curl', '-sSfk', '-b', `PVEAuthCookie=${ticket}`, '-o', join(scratch, 'got'), place])
    return readFile(join(scratch, 'got'))
  }
  const refusal = async (call: Promise<unknown>) => {
    const fault = await call.then(
      () => assert.fail('it was not refused'),
      (cause: unknown) => cause,
    )
    assert.ok(isFault(fault), String(fault))
    return `${fault.message} ${JSON.stringify(fault.fields ?? {})}`
  }
  const hako = (...args: string[]) =>
    host.run([process.execPath, ...nodeFlags, program, ...args], {
      env: { ...compiled, HAKO_RUN_DIR: node.settings.runDir, HAKO_NODE: node.settings.node, LANG: 'C.UTF-8' },
      okCodes: Array.from({ length: 16 }, (_, code) => code),
      cwd: scratch,
    })

  test('a job that covers all guests makes one of each, and says what it holds', async () => {
    const job = { id: 'often', schedule: '*:*:0/2', all: '1', storage: 'local', 'notes-template': '{{guestname}}' }
    await node.api('POST', '/cluster/backup', job)
    await waitFor(async () => (await backups()).length > 0, { what: 'a backup by the job', timeoutMs: 30_000 })
    await node.api('PUT', '/cluster/backup/often', { enabled: '0' })
    const [made] = await backups()
    volid = String(made?.volid)
    assert.match(volid, /^local:backup\/ct\/100\//)
    assert.deepEqual([made?.format, made?.subtype, made?.vmid, made?.notes], ['hako-ct', 'lxc', 100, 'web'])
    assert.ok(Number(made?.size) > 700_000)
    const { children } = (await node.api('GET', '/cluster/backup/often/included_volumes')) as { children: Reply[] }
    const volumes = children[0]?.children as Reply[]
    assert.deepEqual(
      [children[0]?.type, ...volumes.map(({ id, included }) => `${String(id)} ${String(included)}`)],
      ['lxc', 'rootfs 1', 'mp0 1'],
    )
    const text = String(await node.api('GET', `/nodes/${node.settings.node}/vzdump/extractconfig`, { volume: volid }))
    assert.match(text, /^hostname: web$[^]*^mp0: .*mp=\/srv\/more/m)
    // The guest may be busy with a run of the job yet.
    const isFree = async () =>
      ((await node.api('GET', '/cluster/tasks')) as Reply[]).every((task) => task.endtime !== undefined)
    await waitFor(isFree, { what: 'the end of the job', timeoutMs: 30_000 })
  })

  test('are looked into folder by folder, mount points in their places', async () => {
    const [root, ...others] = await list('/')
    assert.deepEqual([root?.text, root?.type, root?.leaf, others], ['root.pxar.didx', 'd', 0, []])
    const top = await list(String(root?.filepath))
    assert.ok(['bin', 'etc', 'srv'].every((name) => top.some((one) => one.text === name && one.leaf === 0)))
    const [note] = (await list(base64('/root.pxar.didx/root/wäre'))).filter(({ text }) => text === 'note')
    const facts = [note?.type, note?.leaf, note?.filepath]
    assert.deepEqual(facts, ['h', 1, base64('/root.pxar.didx/root/wäre/note')])
    assert.deepEqual(
      (await list(base64('/root.pxar.didx/srv/more'))).map(({ text, size }) => [text, size]),
      [['file', 5]],
    )
    assert.match(await refusal(list('***')), /filepath.*base64/)
    assert.match(await refusal(list(base64('/other.pxar.didx/etc'))), /no archive 'other\.pxar\.didx'/)
    assert.match(await refusal(list(base64('/root.pxar.didx/../etc'))), /no plain path/)
    assert.match(await refusal(list(base64('/root.pxar.didx/no/such'))), /'no\/such' does not exist/)
  })

  test('give out a file as it is, and a folder as an archive', async () => {
    assert.equal((await download('/root/wäre/note')).toString(), 'first\n')
    const random = await download('/root/random')
    assert.equal(random.length, 700_000)
    const sum = (await host.run(['sha256sum', join(scratch, 'got')])).stdout.split(' ')[0]
    assert.equal(await sh('busybox sha256sum /root/random').then((text) => text.split(' ')[0]), sum)
    await download('/root')
    const { stdout } = await host.run(['unzip', '-p', join(scratch, 'got'), 'root/wäre/note'])
    assert.equal(stdout, 'first\n')
    await download('/root', '&tar=1')
    const names = (await host.run(['tar', '-t', '--zstd', '-f', join(scratch, 'got')])).stdout.split('\n')
    assert.ok(names.includes('root/wäre/link') && names.includes('root/random'), names.join())
    await assert.rejects(download('/root/wäre/link'), /400/)
    // What is mounted in a folder comes with it.
    await download('/srv', '&tar=1')
    const whole = (await host.run(['tar', '-t', '--zstd', '-f', join(scratch, 'got')])).stdout.split('\n')
    assert.deepEqual([...new Set(whole)].toSorted(), ['', 'srv/', 'srv/more/', 'srv/more/file'])
    await assert.rejects(download('/srv'), /400/)
    await download('/srv/more')
    assert.equal((await host.run(['unzip', '-p', join(scratch, 'got'), 'more/file'])).stdout, 'more\n')
  })

  test('are the command line’s too', async () => {
    const { stdout } = await hako('backup', 'files', volid, '/root/wäre')
    assert.match(stdout, /^ *0777 +0 +0 .* link +note$/m)
    assert.equal((await hako('backup', 'files', volid, '/srv/more', '-o', 'id')).stdout, '/srv/more/file\n')
    assert.equal((await hako('backup', 'get', volid, '/srv/more/file', '-')).stdout, 'more\n')
    assert.equal((await hako('backup', 'get', volid, '/root/wäre', 'w.tar')).code, 0)
    const unpacked = await host.run(['tar', '-x', '-O', '-f', join(scratch, 'w.tar'), 'wäre/note'])
    assert.equal(unpacked.stdout, 'first\n')
    const wrong = await hako('backup', 'get', volid, '/no/such', '-')
    assert.notEqual(wrong.code, 0)
    assert.match(wrong.stderr, /'no\/such' does not exist/)
  })

  test('of virtual machines are shown as disks', async () => {
    const { node: name } = node.settings
    await node.task(await node.api('POST', `/nodes/${name}/qemu`, { vmid: '300', scsi0: 'local:0.01' }))
    await node.task(await node.api('POST', `/nodes/${name}/vzdump`, { vmid: '300', storage: 'local' }))
    const machineBackup = (await backups()).find((one) => one.subtype === 'qemu')
    const [disk] = await list('/', String(machineBackup?.volid))
    assert.deepEqual([disk?.text, disk?.type], ['drive-scsi0.img.fidx', 'v'])
    const params = { vmid: '301', ostemplate: String(machineBackup?.volid), restore: '1' }
    await node.task(await node.api('POST', lxc, params), /is the backup of a virtual machine, not of a container/)
  })

  test('restore as Proxmox VE’s clients ask for it', async () => {
    const restore = { ostemplate: volid, restore: '1' }
    assert.match(await refusal(node.api('POST', lxc, { ...restore, vmid: '100' })), /CT 100 already exists/)
    assert.match(await refusal(node.api('POST', lxc, { ...restore, vmid: '101', password: 'secret' })), /password/)
    assert.match(
      await refusal(node.api('POST', lxc, { ...restore, restore: '0', force: '1', vmid: '101' })),
      /only with 'restore'/,
    )
    const params = { ...restore, vmid: '101', hostname: 'other', unprivileged: '0', unique: '1', start: '1' }
    await node.task(await node.api('POST', lxc, params))
    assert.equal(
      await sh('hostname; cat /root/wäre/note /srv/more/file; stat -c %u /root', 101),
      'other\nfirst\nmore\n0',
    )
    await sh('echo changed > /root/wäre/note', 101)
    await node.task(await node.api('POST', `${lxc}/101/status/stop`))
    assert.equal((await hako('restore', volid, '101', '--force', '--confirm', '101', '--start', '-q')).code, 0)
    assert.equal(await sh('hostname; cat /root/wäre/note', 101), 'web\nfirst')
    const prune = (await node.api('GET', `${storage}/prunebackups`, {
      type: 'lxc',
      'prune-backups': 'keep-last=1',
    })) as Reply[]
    assert.ok(prune.length > 0 && prune.every(({ type, vmid }) => type === 'lxc' && vmid === 100))
  })
})
