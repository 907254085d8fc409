/** Consoles of a real guest and of the node, as clients open them: through the public port, by WebSocket. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import type { Server } from 'node:https'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setDefaultCACertificates } from 'node:tls'
import { waitFor } from '#base/clock.ts'
import { startOnPty } from '#host/programs/pty.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { compiled } from '../compiled.ts'
import { type Browser, type Page, startBrowser } from '../browser.ts'
import { curl } from '../contract/curl.ts'
import { cookieOf, form, logIn, method, proofOf, publicPort, type Session } from '../contract/public-port.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Canvas, differing, litIn, readPpm } from './canvas.ts'
import { type Opened, rootSession, terminalAt } from './console-client.ts'
import { servePages } from './novnc-page.ts'

suite('consoles', { timeout: 900_000 }, () => {
  let node: TestNode
  let at: string
  let guest: string
  let base: string
  let viewer: Session
  let stranger: Session
  let root: Session
  before(async () => {
    node = await nodeUnderTest()
    at = `/nodes/${node.settings.node}`
    guest = `${at}/qemu/100`
    base = `${node.url}/api2/json`
    await node.boot(100)
    for (const userid of ['viewer@pve', 'other@pve', 'stranger@pve']) {
      await node.api('POST', '/access/users', { userid, password: 'correct horse' })
    }
    await node.api('POST', '/access/roles', { roleid: 'Viewer', privs: 'VM.Console' })
    await node.api('POST', '/access/roles', { roleid: 'Operator', privs: 'Sys.Console' })
    await node.api('PUT', '/access/acl', { path: at, roles: 'Operator', users: 'viewer@pve' })
    await node.api('PUT', '/access/acl', { path: '/vms', roles: 'Viewer', users: 'viewer@pve,other@pve' })
    viewer = await logIn(base, 'viewer@pve', 'correct horse')
    stranger = await logIn(base, 'stranger@pve', 'correct horse')
    root = await rootSession(node)
    setDefaultCACertificates([await readFile(join(node.settings.stateDir, 'keys/tls.pem'), 'utf8')])
  })
  after(() => node[Symbol.asyncDispose]())

  const ask = (session: Session, path: string, params: Record<string, string> = {}) =>
    publicPort(base, proofOf(session))(path, ...method('POST'), ...form(params))
  const open = async (path: string, params: Record<string, string> = {}, session = viewer): Promise<Opened> => {
    const reply = await ask(session, path, params)
    assert.equal(reply.status, 200, `${reply.reason} ${reply.body}`)
    return reply.data as Opened
  }
  const query = ({ port, ticket }: Pick<Opened, 'port' | 'ticket'>) =>
    `vncwebsocket?port=${port}&vncticket=${encodeURIComponent(ticket)}`
  const place = (of: string, opened: Opened) => `${base.replace('https', 'wss')}${of}/${query(opened)}`
  const terminal = async (of: string, session = viewer, params = {}) => {
    const opened = await open(`${of}/termproxy`, params, session)
    return { opened, ...(await terminalAt(place(of, opened), session.ticket, opened)) }
  }
  const task = async ({ upid }: Opened) =>
    (await node.api('GET', `${at}/tasks/${encodeURIComponent(upid)}/status`)) as { status: string; exitstatus?: string }
  const ended = (opened: Opened) =>
    waitFor(async () => (await task(opened)).exitstatus ?? false, {
      what: `end of ${opened.upid}`,
      timeoutMs: 60_000,
    })

  suite('the screen, by noVNC', () => {
    let browser: Browser
    let page: Page
    let pages: Server
    let address: string
    before(async () => {
      const keys = join(node.settings.stateDir, 'keys')
      pages = await servePages(keys)
      const place = pages.address()
      assert.ok(typeof place === 'object' && place !== null)
      address = `https://127.0.0.1:${place.port}/`
      browser = await startBrowser(await readFile(join(keys, 'tls.pem')), [node.settings.apiPort, place.port])
      page = await newPage()
    })
    after(async () => {
      pages.close()
      pages.closeAllConnections()
      await browser[Symbol.asyncDispose]()
    })

    const newPage = async () => {
      const made = await browser.page()
      await made.setCookie({ name: 'PVEAuthCookie', value: encodeURIComponent(viewer.ticket), url: node.url })
      await made.open(address)
      const isLoaded = () => made.run<boolean>("typeof connect === 'function'")
      await waitFor(isLoaded, { what: 'noVNC in the page', timeoutMs: 60_000 }).catch((cause: unknown) => {
        throw new Error(`noVNC did not load: ${made.complaints.join('\n')}`, { cause })
      })
      return made
    }
    const look = (on: Page, opened: Opened, password = opened.password, of = guest) =>
      on.run(`connect(${JSON.stringify(place(of, opened))}, ${JSON.stringify(password)})`)
    const openScreen = () => open(`${guest}/vncproxy`, { websocket: '1', 'generate-password': '1' })
    const canvasOf = async (on: Page): Promise<Canvas> => {
      const { pixels, ...size } = await on.run<{ width: number; height: number; pixels: string }>('canvasFacts()')
      return { ...size, pixels: Buffer.from(pixels, 'base64') }
    }
    const screenOfQemu = async (): Promise<Canvas> => {
      const file = `/run/hakobune-test/${node.settings.instance}/guests/100/dump.ppm`
      await node.api('POST', `${guest}/monitor`, { command: `screendump ${file}` })
      return readPpm(await readFile(file))
    }

    test('shows what QEMU has drawn: the boot messages of the guest', async () => {
      const opened = await openScreen()
      assert.match(opened.upid, /^UPID:testnode:.*:vncproxy:100:viewer@pve:$/)
      assert.match(opened.cert ?? '', /BEGIN CERTIFICATE/)
      assert.equal(opened.ticket.slice(0, 9), `${opened.password}:`)
      await look(page, opened)
      assert.equal((await task(opened)).status, 'running')
      const seen = await waitFor(
        async () => {
          const [canvas, drawn] = [await canvasOf(page), await screenOfQemu()]
          // The cursor blinks.
          return canvas.width === drawn.width && differing(canvas, drawn) <= 200 && canvas
        },
        { what: 'the screen QEMU has drawn', timeoutMs: 60_000, everyMs: 200 },
      )
      const lit = litIn(seen)
      assert.ok(lit > 500 && lit < seen.width * seen.height * 0.5, `${lit} pixels are lit`)
    })

    test('takes keys: what is typed in the browser happens in the guest', async () => {
      await page.run(`type('\\n')`)
      await page.run(`type('touch /tmp/typed\\n')`)
      const isThere = () => node.sh(100, 'ls /tmp').then((names) => names.includes('typed'))
      await waitFor(isThere, { what: 'the file made by typing', timeoutMs: 60_000, everyMs: 200 })
    })

    test('is shown to several at once, and each goes without the other', async () => {
      const second = await newPage()
      const opened = await openScreen()
      await look(second, opened)
      const lit = async (on: Page) => litIn(await canvasOf(on))
      await waitFor(async () => Math.abs((await lit(second)) - (await lit(page))) <= 200 && (await lit(page)) > 500, {
        what: 'the same on both',
        timeoutMs: 60_000,
        everyMs: 200,
      })
      await second.run('rfb.disconnect()')
      assert.equal(await ended(opened), 'OK')
      const before = await canvasOf(page)
      await page.run(`type('echo ${'W'.repeat(60)}\\n')`)
      const goesOn = async () => differing(await canvasOf(page), before) > 1_000
      await waitFor(goesOn, { what: 'a screen that goes on', timeoutMs: 60_000 })
    })

    test('asks for its password', async () => {
      const other = await newPage()
      const opened = await openScreen()
      await assert.rejects(look(other, opened, 'wrong'), /refused: authentication failure/)
      assert.equal(await ended(opened), 'wrong password for the screen')
      // Older clients give the ticket itself.
      const old = await open(`${guest}/vncproxy`, { websocket: '1' })
      assert.equal(old.password, undefined)
      await look(other, old, old.ticket)
    })

    test('can be a terminal of the node, where one has to say who one is', async () => {
      const other = await newPage()
      const opened = await open(`${at}/vncshell`, { websocket: '1', width: '640', height: '400' })
      await look(other, opened, opened.password, at)
      const shown = () => canvasOf(other)
      const { width, height } = await waitFor(async () => litIn(await shown()) > 50 && shown(), {
        what: 'the question for a login',
        timeoutMs: 60_000,
      })
      assert.deepEqual([width, height], [640, 400])
      const lit = litIn(await shown())
      await other.run(`type('nobody-of-this-name\\n')`)
      await waitFor(async () => litIn(await shown()) > lit + 200, { what: 'what was typed', timeoutMs: 60_000 })
      const servers = () =>
        findProcesses((argv) => argv.some((word) => word.includes(`${node.settings.runDir}/screens/`)))
      assert.equal((await servers()).length, 1)
      await other.run('rfb.disconnect()')
      assert.equal(await ended(opened), 'OK')
      await waitFor(async () => (await servers()).length === 0, { what: 'the end of its server', timeoutMs: 60_000 })
    })

    test('goes dark when its task is stopped', async () => {
      const other = await newPage()
      const opened = await openScreen()
      await look(other, opened)
      await node.api('DELETE', `${at}/tasks/${encodeURIComponent(opened.upid)}`)
      await waitFor(() => other.run<boolean>('isGone'), { what: 'the end of the console', timeoutMs: 60_000 })
      assert.equal(await ended(opened), 'stopped')
    })
  })

  suite('a terminal at the serial port', () => {
    test('what is typed runs in the guest, and what it prints is shown', async () => {
      const console = await terminal(guest)
      await console.until(/^OK/)
      console.type('\n')
      await console.until(/# /)
      console.send('2')
      console.send('1:132:43:')
      console.type("echo $((6*7)) 'Grüße'; cat /etc/hostname\n")
      await console.until(/42 Grüße\r\n/)
      console.close()
      assert.equal(await ended(console.opened), 'OK')
    })

    test('several look and type together', async () => {
      const [first, second] = [await terminal(guest), await terminal(guest)]
      await second.until(/^OK/)
      first.type('\necho $((1000+337))\n')
      for (const one of [first, second]) await one.until(/1337\r\n/)
      first.close()
      await ended(first.opened)
      second.type('echo $((2000+337))\n')
      await second.until(/2337\r\n/)
      second.close()
      await ended(second.opened)
    })

    test('a client that greets wrongly or speaks something else is sent away', async () => {
      const opened = await open(`${guest}/termproxy`)
      const liar = await terminalAt(place(guest, opened), viewer.ticket, opened, `root@pam:${opened.ticket}\n`)
      assert.deepEqual(await liar.ended, { code: 1011, reason: 'authentication failure' })
      assert.equal(liar.text(), '')
      const console = await terminal(guest)
      await console.until(/^OK/)
      console.send('7:nonsense')
      assert.deepEqual(await console.ended, {
        code: 1011,
        reason: 'the client sent what is no message of a terminal',
      })
    })

    test('a person gets it by the command line, and leaves by Ctrl-]', async () => {
      const hako = await startOnPty(
        [process.execPath, join(import.meta.dirname, '../../src/cli/main.ts'), 'vm', 'console', '100'],
        {
          env: { ...compiled, HAKO_RUN_DIR: node.settings.runDir },
        },
      )
      let shown = ''
      hako.stream.on('data', (part: Buffer) => (shown += part.toString('utf8')))
      const until = (sign: RegExp) => waitFor(() => sign.test(shown), { what: String(sign), timeoutMs: 60_000 })
      await until(/Ctrl-\] leaves/)
      hako.stream.write('\n')
      await until(/# /)
      hako.stream.write('echo $((3000+337))\n')
      await until(/3337\r+\n/)
      hako.stream.write('\u001D')
      await until(/The console is closed/)
      await hako.ended
    })
  })

  suite('a terminal of the node', () => {
    test('is a shell for the administrator, as large as the client says', async () => {
      const shell = await terminal(at, root)
      assert.match(shell.opened.upid, /:vncshell::root@pam:$/)
      await shell.until(/^OK/)
      shell.send('1:101:33:')
      shell.type('id; stty size; tty\n')
      await shell.until(/uid=0\(root\)[^]*33 101\r\n\/dev\/pts\//)
      shell.type('exit\n')
      assert.equal((await shell.ended).code, 1000)
      assert.equal(await ended(shell.opened), 'OK')
    })

    test('ends, with what runs on it, when the client goes', async () => {
      const shell = await terminal(at, root)
      const mark = `7${process.pid}`
      shell.type(`sleep ${mark}\n`)
      await waitFor(async () => (await sleeping(mark)).length === 1, {
        what: 'a program in the shell',
        timeoutMs: 60_000,
      })
      shell.close()
      await ended(shell.opened)
      await waitFor(async () => (await sleeping(mark)).length === 0, { what: 'its end', timeoutMs: 60_000 })
    })

    test('asks everybody else who they are on this machine', async () => {
      const shell = await terminal(at)
      await shell.until(/login: /)
      shell.close()
      await ended(shell.opened)
      assert.equal((await ask(viewer, `${at}/termproxy`, { cmd: 'upgrade' })).status, 403)
      const none = await ask(root, `${at}/termproxy`, { cmd: 'ceph_install' })
      assert.match(none.reason, /^Ceph is not supported/)
    })
  })

  // A wrong ticket is answered late, and they need not wait for each other.
  suite('who may look', { concurrency: true }, () => {
    const headers = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13']
    const handshake = [...headers, 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='].flatMap((line) => ['-H', line])
    const upgrade = (session: Session, of: string, opened: Pick<Opened, 'port' | 'ticket'>) =>
      curl([...cookieOf(session), ...handshake, '--http1.1', `${base}${of}/${query(opened)}`])

    test('nobody without the right gets a ticket', async () => {
      for (const path of [`${guest}/vncproxy`, `${guest}/termproxy`, `${at}/termproxy`]) {
        const reply = await ask(stranger, path)
        assert.equal(reply.status, 403, path)
        assert.match(reply.reason, /^Permission check failed \(\/(vms\/100, VM|nodes\/testnode, Sys)\.Console\)/)
      }
    })

    test('a ticket opens its own console, for its own user, once', async () => {
      const other = await logIn(base, 'other@pve', 'correct horse')
      const opened = await open(`${guest}/termproxy`)
      const invalid = /permission denied - invalid PVEVNC ticket/
      const forged = { ...opened, ticket: `${opened.ticket.slice(0, -6)}AAAA==` }
      const refused = await Promise.all([
        upgrade(other, guest, opened),
        upgrade(viewer, `${at}/qemu/101`, opened),
        upgrade(viewer, at, opened),
        upgrade(viewer, guest, { ...opened, port: opened.port === 5900 ? 5901 : 5900 }),
        upgrade(viewer, guest, forged),
      ])
      for (const { status, reason } of refused) assert.deepEqual([status, invalid.test(reason)], [401, true], reason)
      const console = await terminalAt(place(guest, opened), viewer.ticket, opened)
      await console.until(/^OK/)
      const again = await upgrade(viewer, guest, opened)
      assert.match(again.reason, /^console \d+ does not exist/)
      console.close()
      await ended(opened)
    })

    test('others can have a ticket checked', async () => {
      const opened = await open(`${guest}/vncproxy`)
      const check = async (changes: Record<string, string>) => {
        const facts = { authid: 'viewer@pve', path: '/vms/100', privs: 'VM.Console', port: String(opened.port) }
        const params = form({ ...facts, vncticket: opened.ticket, ...changes })
        return (await publicPort(base)('/access/vncticket', ...params)).status
      }
      const wrong = [{ authid: 'root@pam' }, { path: '/vms/101' }, { privs: 'VM.Allocate' }, { port: '5999' }]
      const [right, ...others] = await Promise.all([{}, ...wrong].map(check))
      assert.equal(right, 200)
      assert.deepEqual(others, [401, 401, 401, 401])
    })

    test('a token has its own tickets, and only they are its own', async () => {
      const { value } = (await node.api('POST', '/access/users/viewer@pve/token/tok', { privsep: '0' })) as {
        value: string
      }
      const proof = ['-H', `Authorization: PVEAPIToken=viewer@pve!tok=${value}`]
      const opened = (await publicPort(base, proof)(`${guest}/termproxy`, ...method('POST'))).data as Opened
      assert.equal(opened.user, 'viewer@pve!tok')
      assert.equal((await upgrade(viewer, guest, opened)).status, 401)
    })
  })

  test('a guest without the console that is asked for says so', async () => {
    const bare = { memory: '16', vga: 'none', balloon: '0' }
    await node.task(await node.api('POST', `${at}/qemu`, { ...bare, vmid: '102' }))
    const reason = async (path: string, params = {}) => (await ask(root, `${at}/qemu/${path}`, params)).reason
    assert.equal(await reason('102/vncproxy'), 'VM 102 not running')
    await node.task(await node.api('POST', `${at}/qemu/102/status/start`))
    assert.equal(await reason('102/termproxy'), 'unable to find a serial interface')
    assert.equal(await reason('100/termproxy', { serial: 'serial1' }), "unable to find a serial interface 'serial1'")
    assert.equal(await reason('102/vncproxy'), "VM 102 has no screen: its display is 'none'")
    assert.match(await reason('999/termproxy'), /999.conf' does not exist/)
    await node.task(await node.api('POST', `${at}/qemu/102/status/stop`))
  })

  test('a node that is killed leaves no console behind, and the next one knows', async () => {
    const [console, shell] = [await terminal(guest), await terminal(at, root)]
    const mark = `8${process.pid}`
    shell.type(`sleep ${mark}\n`)
    await waitFor(async () => (await sleeping(mark)).length === 1, {
      what: 'a program in the shell',
      timeoutMs: 60_000,
    })
    await node.kill9()
    await Promise.all([console.ended, shell.ended])
    await waitFor(async () => (await sleeping(mark)).length === 0, { what: 'the end of the shell', timeoutMs: 60_000 })
    await node.restart()
    for (const { opened } of [console, shell]) {
      assert.equal((await task(opened)).exitstatus, 'interrupted: the node was ended')
    }
    assert.deepEqual(await node.api('GET', `${at}/tasks`, { source: 'active' }), [])
  })

  test('a console ends with its guest', async () => {
    const console = await terminal(guest)
    await console.until(/^OK/)
    await node.task(await node.api('POST', `${guest}/status/stop`))
    assert.equal((await console.ended).code, 1000)
    assert.equal(await ended(console.opened), 'OK')
  })
})

const sleeping = (mark: string) => findProcesses((argv) => argv[0] === 'sleep' && argv[1] === mark)
