/** Files into a container and out of it, by people, by programs, and by those who mean harm. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { compiled } from '../compiled.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { rootSession } from './console-client.ts'

const program = join(import.meta.dirname, '../../src/cli/main.ts')
const host = machine()

suite('files of a container', { timeout: 180_000 }, () => {
  let node: TestNode
  let lxc: string
  let scratch: string
  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'hako-files-'))
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    await offerTemplate(node.settings)
    // A folder of the node, of which its owner alone may read a file.
    await chmod(scratch, 0o755)
    await mkdir(join(scratch, 'of-the-node'))
    await writeFile(join(scratch, 'of-the-node/secret'), 'of the node', { mode: 0o600 })
    const options = { memory: '64', rootfs: 'local:0', mp0: 'local:0,mp=/srv/more' }
    const mp1 = `${join(scratch, 'of-the-node')},mp=/srv/node`
    await Promise.all([
      make(100, { ...options, mp1, start: '1' }),
      make(101, options),
      make(102, { rootfs: 'local:0.1' }),
      make(103, { ...options, unprivileged: '0', start: '1' }),
    ])
  })
  after(async () => {
    await node[Symbol.asyncDispose]()
    await rm(scratch, { recursive: true, force: true })
  })

  const make = async (vmid: number, options: Record<string, string>) =>
    node.task(await node.api('POST', lxc, { vmid: String(vmid), ostemplate: template, ...options }))
  const at = (vmid: number) => `/hako/containers/${node.settings.node}/${vmid}`
  const run = async (vmid: number, ...command: string[]) =>
    (await node.api('POST', `${at(vmid)}/exec`, { command })) as { exitcode: number; 'out-data': string }
  const sh = async (vmid: number, script: string) => {
    const { exitcode, 'out-data': out } = await run(vmid, '/bin/sh', '-c', script)
    assert.equal(exitcode, 0, `${script}: ${out}`)
    return out.trimEnd()
  }
  const hako = (...args: string[]) =>
    host.run([process.execPath, ...nodeFlags, program, 'ct', 'file', ...args], {
      env: { ...compiled, HAKO_RUN_DIR: node.settings.runDir, HAKO_NODE: node.settings.node, LANG: 'C.UTF-8' },
      okCodes: Array.from({ length: 16 }, (_, code) => code),
      cwd: scratch,
    })
  /** Through the API, as the command line does it. */
  const push = async (vmid: number, name: string, path: string, more: Record<string, string> = {}, end = /^OK$/) => {
    const params = { ...more, path, filename: local(name) }
    const { data } = await node.connection.call('POST', `${at(vmid)}/file`, params, { isUpload: true })
    await node.task(data, end)
  }
  const pull = async (vmid: number, path: string, more = '') => {
    const place = `http://node/api2/json${at(vmid)}/file?path=${encodeURIComponent(path)}${more}`
    const socket = ['--unix-socket', join(node.settings.runDir, 'api.sock')]
    const { code, stdout } = await host.run(['curl', '-sS', ...socket, '-w', '%{stderr}%{http_code}', place], {
      okCodes: [0, 18],
    })
    return code === 0 ? stdout : 'broken off'
  }
  const notPulled = async (sign: RegExp, vmid: number, path: string, more = '') =>
    assert.match(String((JSON.parse(await pull(vmid, path, more)) as { message: string }).message), sign)
  const local = (name: string) => join(scratch, name)

  test('go in as root’s, replace what is there as it was, and come out the same', async () => {
    await writeFile(local('note'), 'first\n')
    assert.equal((await hako('push', '100', 'note', '/root/')).code, 0)
    assert.equal(await sh(100, 'cat /root/note; stat -c "%a %u %g" /root/note'), 'first\n644 0 0')
    await sh(100, 'chown 7:8 /root/note; chmod 600 /root/note')
    await writeFile(local('note'), 'second\n')
    await push(100, 'note', '/root/note')
    assert.equal(await sh(100, 'cat /root/note; stat -c "%a %u %g" /root/note'), 'second\n600 7 8')
    await push(100, 'note', '/opt/new/place', { parents: '1', mode: '4755', uid: '3', gid: '4' })
    assert.equal(await sh(100, 'stat -c "%a %u %g" /opt/new /opt/new/place'), '755 0 0\n4755 3 4')
    assert.equal((await hako('pull', '100', '/root/note', '-')).stdout, 'second\n')
    assert.equal((await hako('pull', '100', '/root/note', 'back')).code, 0)
    assert.equal(await readFile(local('back'), 'utf8'), 'second\n')
    assert.match((await hako('list', '100', '/opt/new')).stdout, /4755 +3 +4 +7 .* place/)
  })

  test('reach memory file systems and mount points of the running one, and say what the kernel makes up', async () => {
    await sh(100, 'mkdir -p /tmp/ram && mount -t tmpfs none /tmp/ram')
    for (const path of ['/tmp/ram/a', '/srv/more/a']) {
      await push(100, 'note', path)
      assert.equal(await sh(100, `cat ${path}`), 'second')
    }
    assert.match(await pull(100, '/proc/1/status'), /^Name:.*\n/)
  })

  test('are of any size, and cost the daemon no memory', async () => {
    const size = 160 * MiB
    await host.run(['dd', 'if=/dev/urandom', `of=${local('large')}`, 'bs=1M', 'count=160', 'status=none'])
    const expected = await sha256Of(createReadStream(local('large')))
    const daemon = await daemonPidOf(node)
    const before = await peakBytesOf(daemon)
    await push(100, 'large', '/srv/more/large')
    assert.equal(await sh(100, 'stat -c %s /srv/more/large'), String(size))
    // The same way from outside: through the front, as any program would.
    const { ticket } = await rootSession(node)
    const place = `${node.url}/api2/json${at(100)}/file?path=/srv/more/large`
    await host.run([
      'curl',
      '-sSfk',
      '-b',
      `PVEAuthCookie=${ticket}`,
      '-o',
      local('returned'),
      '-D',
      local('head'),
      place,
    ])
    assert.equal(await sha256Of(createReadStream(local('returned'))), expected)
    assert.match(await readFile(local('head'), 'utf8'), new RegExp(`content-length: ${size}\\r`, 'i'))
    const grown = (await peakBytesOf(daemon)) - before
    assert.ok(grown < 64 * MiB, String(grown))
    await rm(local('large'))
    await rm(local('returned'))
  })

  test('lead nowhere else, whatever links and other things lie inside', async () => {
    await sh(
      100,
      `mkdir -p /evil && cd /evil && ln -s ${scratch}/of-the-node/secret absolute && ln -s ../../../../../../..${scratch} up &&
       ln -s round1 round2 && ln -s round2 round1 && mknod pipe p && ln -s /proc/1/root/etc magic`,
    )
    for (const name of ['absolute', 'up/note', 'up/of-the-node/secret']) {
      await notPulled(/does not exist in the container/, 100, `/evil/${name}`)
    }
    await notPulled(/circles|too many links|ELOOP/, 100, '/evil/round1')
    await notPulled(/no plain file/, 100, '/evil/pipe')
    await notPulled(/is a folder/, 100, '/evil')
    await notPulled(/no plain file/, 100, '/dev/zero')
    // Where the link leads is inside, and there it is made.
    await push(100, 'note', '/evil/absolute', { parents: '1' })
    assert.equal(await sh(100, `cat ${scratch}/of-the-node/secret`), 'second')
    assert.equal(await readFile(join(scratch, 'of-the-node/secret'), 'utf8'), 'of the node')
    assert.deepEqual(
      (await readdir(scratch)).filter((name) => name.startsWith('.')),
      [],
    )
  })

  test('are root’s inside to read and write, and nothing that is not: neither the node’s nor the kernel’s', async () => {
    await notPulled(/may not/, 100, '/srv/node/secret')
    await push(100, 'note', '/srv/node/secret', {}, /may not/)
    await notPulled(/may not/, 100, '/proc/slabinfo')
    for (const path of ['/proc/sys/kernel/panic', '/proc/sysrq-trigger', '/sys/kernel/uevent_helper']) {
      for (const vmid of [100, 103])
        await push(vmid, 'note', path, {}, /may not|no file can be made|does not exist|read-only/)
    }
    await notPulled(/may not/, 103, '/proc/kmsg')
    await push(100, 'note', '/root/nobody', { uid: '70000' }, /no such owner/)
    assert.equal((await run(100, '/bin/ls', '/root/nobody')).exitcode, 1)
    assert.equal(await readFile(join(scratch, 'of-the-node/secret'), 'utf8'), 'of the node')
  })

  test('of a container without a user namespace are root’s as well', async () => {
    await push(103, 'note', '/root/note', { mode: '0600' })
    assert.equal(await sh(103, 'cat /root/note; stat -c "%a %u" /root/note'), 'second\n600 0')
    assert.equal(await pull(103, '/root/note'), 'second\n')
  })

  test('of one that is off are those of its volumes; links between them, and images, are named', async () => {
    await push(101, 'note', '/root/note', { uid: '5' })
    await push(101, 'note', '/srv/more/note')
    assert.equal(await pull(101, '/srv/more/note'), 'second\n')
    await node.task(await node.api('POST', `${lxc}/101/status/start`))
    assert.equal(await sh(101, 'stat -c %u /root/note; cat /srv/more/note; ln -s /srv/more /link'), '5\nsecond')
    await node.task(await node.api('POST', `${lxc}/101/status/stop`))
    await push(101, 'note', '/link/note', {}, /leads through a link into mp0/)
    await notPulled(/is off, and its rootfs is an image/, 102, '/etc/passwd')
    await push(101, 'note', '/nowhere/x', {}, /'\/nowhere\/x' does not exist|folder '\/nowhere' does not exist/)
  })

  test('go and come by the folder, as archives', async () => {
    await mkdir(local('site/deep'), { recursive: true })
    await writeFile(local('site/deep/page'), 'a page')
    await host.run(['tar', '-C', local('site'), '-cf', local('site.tar'), '.'])
    await sh(100, 'mkdir -p /srv/site')
    await push(100, 'site.tar', '/srv/site', { archive: '1' })
    assert.equal(await sh(100, 'cat /srv/site/deep/page'), 'a page')
    const pulling = ['pull', '100', '/srv/site', '--archive', '1'] as const
    assert.equal((await hako(...pulling)).code, 5, 'a file of that name is there')
    assert.equal((await hako(...pulling, '--force')).code, 0)
    assert.match((await host.run(['tar', '-tf', local('site.tar')])).stdout, /site\/deep\/page/)
    await notPulled(/'\/srv\/nothing' does not exist/, 100, '/srv/nothing', '&archive=1')
    await push(100, 'note', '/srv/site', { archive: '1' }, /tar did not unpack it/)
    await notPulled(/not running/, 101, '/root', '&archive=1')
  })

  test('are the old or the new when whoever brings them is killed, and nothing else is left', async () => {
    await host.run(['truncate', '-s', '256M', local('huge')])
    await sh(100, 'rm -rf /srv/more/large; echo old > /srv/more/huge; ls -A /srv/more > /tmp/before')
    const pushing = push(100, 'huge', '/srv/more/huge', {}, /cannot be reached/)
    const hand = await waitFor(handAtWork, { what: 'the hand at work', timeoutMs: 30_000, everyMs: 2 })
    process.kill(hand, 'SIGKILL')
    await pushing
    assert.equal(await sh(100, 'cat /srv/more/huge'), 'old')
    assert.equal(await sh(100, 'ls -A /srv/more | diff - /tmp/before 2>&1 || ls -A /srv/more'), '')
    const spooled = await readdir(join(node.settings.stateDir, 'upload/claimed'))
    assert.deepEqual(spooled, [])
    await rm(local('huge'))
  })

  test('of a template are read, and never written: other containers stand on them', async () => {
    await make(104, { rootfs: 'local:0' })
    await push(104, 'note', '/root/note')
    await node.api('POST', `${lxc}/104/template`)
    const isTemplate = async () =>
      ((await node.api('GET', `${lxc}/104/config`)) as { template?: number }).template === 1
    await waitFor(isTemplate, { what: 'the template', timeoutMs: 30_000 })
    await push(104, 'note', '/root/other', {}, /the files of template 104 are only read/)
    assert.equal(await pull(104, '/root/note'), 'second\n')
  })

  test('need the right to read or to write files of that guest', async () => {
    await node.api('POST', '/access/users', { userid: 'reader@pve' })
    await node.api('POST', '/access/roles', { roleid: 'Reader', privs: 'VM.GuestAgent.FileRead' })
    await node.api('PUT', '/access/acl', { path: '/vms/100', users: 'reader@pve', roles: 'Reader' })
    const { value } = (await node.api('POST', '/access/users/reader@pve/token/files', { privsep: '0' })) as {
      value: string
    }
    const asked = async (vmid: number, ...more: string[]) => {
      const token = ['-H', `Authorization: PVEAPIToken=reader@pve!files=${value}`]
      const place = `${node.url}/api2/json${at(vmid)}/file?path=/root/note`
      return (await host.run(['curl', '-sk', '-o', '/dev/null', '-w', '%{http_code}', ...token, ...more, place])).stdout
    }
    assert.equal(await asked(100), '200')
    assert.equal(await asked(101), '403')
    assert.equal(await asked(100, '-F', `filename=@${local('note')}`), '403')
  })
})

async function sha256Of(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256')
  for await (const piece of bytes) hash.update(piece)
  return hash.digest('hex')
}

async function daemonPidOf({ settings }: TestNode): Promise<number> {
  for (const name of (await readdir('/proc')).filter((one) => /^\d+$/.test(one))) {
    const [argv, env] = await Promise.all(
      ['cmdline', 'environ'].map((file) => readFile(`/proc/${name}/${file}`, 'utf8').catch(() => '')),
    )
    if (argv?.includes('src/main.ts') && env?.includes(settings.runDir)) return Number(name)
  }
  return assert.fail('no daemon')
}

async function peakBytesOf(pid: number): Promise<number> {
  return Number(/^VmHWM:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}

/** The process that writes a file of 256 MiB inside. */
async function handAtWork(): Promise<number | undefined> {
  for (const name of (await readdir('/proc')).filter((one) => /^\d+$/.test(one))) {
    const argv = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')
    if (argv.startsWith('/proc/self/fd/5') && argv.includes('"sizeBytes":268435456')) return Number(name)
  }
  return undefined
}
