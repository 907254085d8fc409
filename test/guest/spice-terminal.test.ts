/** A terminal by SPICE: Debian's virt-viewer shows that of a container, and what is typed into it arrives there. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { access, chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { compiled } from '../compiled.ts'
import { offerTemplate } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Canvas, differing, litIn } from './canvas.ts'
import { askProxy, beginTls, knock, type ViewerFacts } from './spice-door.ts'
import { type Desk, startDesk, type Viewer } from './spice-viewer.ts'

suite('a terminal by SPICE', { timeout: 120_000 }, () => {
  let node: TestNode
  let at: string
  let lxc: string
  before(async () => {
    node = await nodeUnderTest({ changes: { spicePort: 0 } })
    at = `/nodes/${node.settings.node}`
    lxc = `${at}/lxc`
    await offerTemplate(node.settings)
    const ostemplate = 'local:vztmpl/busybox.tar.gz'
    const options = { memory: '64', hostname: 'first', cmode: 'shell', rootfs: 'local:0', start: '1' }
    await node.task(await node.api('POST', lxc, { vmid: '100', ostemplate, ...options }))
  })
  after(() => node[Symbol.asyncDispose]())

  const run = async (...command: string[]) =>
    (await node.api('POST', `/hako/containers/${node.settings.node}/100/exec`, { command })) as { 'out-data': string }
  const screens = () => join(node.settings.runDir, 'screens')
  const programs = (place = screens()) => findProcesses((argv) => argv.some((word) => word.includes(`${place}/`)))
  const soon = <T>(what: string, ask: () => T | undefined | false | Promise<T | undefined | false>) =>
    waitFor(ask, { what, timeoutMs: 30_000, everyMs: 100 })
  const nothingIsLeft = () =>
    soon('the end of all its programs', async () => {
      const left = await readdir(screens()).catch(() => [])
      return left.length === 0 && (await programs()).length === 0
    })
  const tasks = async (type: string) =>
    (await node.api('GET', `${at}/tasks`, { source: 'all', typefilter: type })) as { upid: string; status?: string }[]
  const end = (upid: string) =>
    soon(`the end of ${upid}`, async () => {
      const task = await node.api('GET', `${at}/tasks/${encodeURIComponent(upid)}/status`)
      return (task as { exitstatus?: string }).exitstatus
    })
  const opened = async (path: string): Promise<[ViewerFacts, string]> => {
    const type = path.slice(path.lastIndexOf('/') + 1)
    const before = new Set((await tasks(type)).map(({ upid }) => upid))
    const facts = (await node.api('POST', path)) as ViewerFacts
    const [task] = (await tasks(type)).filter(({ upid }) => !before.has(upid))
    assert.ok(task)
    return [facts, task.upid]
  }
  const holder = join(import.meta.dirname, '../fixtures/spice-terminal-holder.ts')
  const pem = ({ ca }: ViewerFacts) => ca.replaceAll('\\n', '\n')
  const enter = async (facts: ViewerFacts) => {
    const { status, socket } = await askProxy(Number(new URL(facts.proxy).port), `${facts.host}:${facts['tls-port']}`)
    assert.equal(status, 200)
    return beginTls(socket, pem(facts))
  }

  suite('in virt-viewer', () => {
    let desk: Desk
    before(async () => (desk = await startDesk({ width: 1024, height: 768 })))
    after(() => desk[Symbol.asyncDispose]())

    const openedViewer = async () => {
      const hako = [process.execPath, join(import.meta.dirname, '../../src/cli/main.ts'), 'ct', 'spice', '100'] as const
      const { stdout } = await machine().run(hako, { env: { ...compiled, HAKO_RUN_DIR: node.settings.runDir } })
      assert.match(stdout, /^\[virt-viewer\]\ntype=spice\ntitle=CT 100 - first\nhost=/)
      return desk.open(stdout)
    }
    /** When the shell has said who it is. */
    const untilShown = (viewer: Viewer): Promise<Canvas> =>
      soon('the shell', async () => {
        const canvas = await desk.shown()
        const lit = (from: number, to: number) =>
          litIn({ ...canvas, pixels: canvas.pixels.subarray(from * 1024 * 4, to * 1024 * 4) })
        assert.equal(viewer.hasEnded(), false, viewer.said())
        // Below the viewer's bar a few lines, below them nothing but the pointer.
        return lit(60, 200) > 100 && lit(200, 768) < 100 && canvas
      })

    test('what is typed arrives in the container, and its picture changes', async () => {
      const viewer = await openedViewer()
      const empty = await untilShown(viewer)
      // The shell may still be starting when the first letters come.
      await soon('what was typed', async () => {
        await desk.type('echo first $(stty size) > /root/seen\n')
        return (await run('/bin/cat', '/root/seen'))['out-data'] === 'first 59 170\n'
      })
      await desk.type('yes drawn for a viewer by SPICE | head -n 50\n')
      await soon('a full picture', async () => differing(empty, await desk.shown()) > 5_000)
      await viewer.close()
      await nothingIsLeft()
    })

    test('ends with the shell, and with its X server', async () => {
      const first = await openedViewer()
      await untilShown(first)
      await soon('the end of the viewer', async () => {
        if (!first.hasEnded()) await desk.type('exit\n')
        return first.hasEnded()
      })
      await nothingIsLeft()
      const second = await openedViewer()
      await untilShown(second)
      const [server] = await findProcesses(
        (argv) => argv.includes('--json-status-fd') && argv.some((word) => word.includes(screens())),
      )
      assert.ok(server !== undefined)
      process.kill(server, 'SIGKILL')
      await soon('the end of the viewer', () => second.hasEnded())
      await nothingIsLeft()
    })
  })

  test('asks for its password by itself, over a certificate of its own; no argument says a secret, and its key lies nowhere', async () => {
    const [facts, upid] = await opened(`${lxc}/100/spiceproxy`)
    assert.equal(facts.title, 'CT 100 - first')
    assert.equal(facts['host-subject'], 'CN=CT 100,O=Hakobune')
    assert.equal(new X509Certificate(pem(facts)).subject, 'CN=CT 100\nO=Hakobune')
    assert.match(upid, /:spiceproxy:100:root@pam:$/)
    assert.equal((await programs()).length, 0, 'nothing is drawn before a viewer comes')
    const main = await enter(facts)
    for (const [password, isRight] of [
      ['wrong', false],
      ['', false],
      [facts.password, true],
    ] as const) {
      const channel = await enter(facts)
      assert.equal(await knock(channel, password), isRight)
      channel.destroy()
    }
    const [place = ''] = await readdir(screens())
    await assert.rejects(access(join(screens(), place, 'x11/server-key.pem')), /ENOENT/)
    for (const pid of await programs()) {
      assert.ok(!(await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(facts.password))
    }
    // Nothing of it listens on the network of the machine.
    const { stdout } = await machine().run(['ss', '--listening', '--tcp', '--no-header', '--processes'])
    assert.doesNotMatch(stdout, /Xorg|socat/)
    main.destroy()
    assert.equal(await end(upid), 'OK')
    await nothingIsLeft()
  })

  test('is there for the node as well, until its task is stopped', async () => {
    const [facts, upid] = await opened(`${at}/spiceshell`)
    assert.match(upid, /:spiceshell::root@pam:$/)
    assert.match(facts.host, /^[0-9a-f]{8}\.0\.[a-z2-7]{52}\.[a-z2-7]{51}\.spice$/)
    const main = await enter(facts)
    assert.equal(await knock(main, facts.password), true)
    await node.api('DELETE', `${at}/tasks/${encodeURIComponent(upid)}`)
    assert.equal(await end(upid), 'stopped')
    await nothingIsLeft()
  })

  test('leaves nothing behind when a viewer goes while it is being drawn', async () => {
    const [facts, upid] = await opened(`${lxc}/100/spiceproxy`)
    const { status, socket } = await askProxy(Number(new URL(facts.proxy).port), `${facts.host}:${facts['tls-port']}`)
    assert.equal(status, 200)
    socket.destroy()
    assert.equal(await end(upid), 'OK')
    await nothingIsLeft()
  })

  test('says what is missing where Xspice is not installed', async () => {
    const hidden = ['sh', '-ec', 'mount -t tmpfs none /usr/lib/xorg; exec "$@"', 'sh'] as const
    const argv = ['unshare', '--mount', ...hidden, process.execPath, holder, '/run/nowhere', '1'] as const
    const { stderr } = await machine().run(argv, { okCodes: [1] })
    assert.match(stderr, /Fault: '\/usr\/lib\/xorg\/Xorg' is not installed/)
    assert.match(stderr, /apt-get install xserver-xspice xterm socat bubblewrap/)
  })

  test('ends with the process that drew it, even one that is killed', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hako-drawn-'))
    await chmod(directory, 0o711)
    const [place, mark] = [join(directory, 'screen'), `9${process.pid}`]
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', holder, place, mark], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(child.stdout, 'data')
      const sleepers = () => findProcesses(([program, word]) => program === 'sleep' && word === mark)
      await soon('all of it', async () => (await programs(place)).length === 5 && (await sleepers()).length === 1)
      child.kill('SIGKILL')
      await soon('the end of all', async () => (await programs(place)).length + (await sleepers()).length === 0)
    } finally {
      child.kill('SIGKILL')
      await rm(directory, { recursive: true })
    }
  })

  test('is not there for a container that does not run', async () => {
    const refused = node.api('POST', `${lxc}/100/status/stop`).then((upid) => node.task(upid))
    await refused
    await assert.rejects(
      node.api('POST', `${lxc}/100/spiceproxy`),
      (fault) => isFault(fault, 'conflict') && fault.message === 'CT 100 not running',
    )
  })
})
