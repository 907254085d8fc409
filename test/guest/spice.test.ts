/** A real guest by SPICE: the reply of the API is all a viewer gets, and Debian's virt-viewer shows the guest by it. */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { access, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { compiled } from '../compiled.ts'
import { form, logIn, method, proofOf, publicPort, type Session } from '../contract/public-port.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Canvas, litIn, readPpm } from './canvas.ts'
import { askProxy, beginTls, knock, type ViewerFacts } from './spice-door.ts'
import { type Desk, rowsApart, startDesk } from './spice-viewer.ts'

suite('SPICE', { timeout: 240_000 }, () => {
  let node: TestNode
  let at: string
  let guest: string
  let viewer: Session
  let stranger: Session
  before(async () => {
    node = await nodeUnderTest({ changes: { spicePort: 0 } })
    at = `/nodes/${node.settings.node}`
    guest = `${at}/qemu/100`
    await node.boot(100, {
      vga: 'qxl2',
      usb0: 'spice',
      audio0: 'device=AC97,driver=spice',
      spice_enhancements: 'foldersharing=1,videostreaming=filter',
    })
    for (const userid of ['viewer@pve', 'stranger@pve']) {
      await node.api('POST', '/access/users', { userid, password: 'correct horse' })
    }
    await node.api('POST', '/access/roles', { roleid: 'Viewer', privs: 'VM.Console' })
    await mayLook(true)
    viewer = await logIn(`${node.url}/api2/json`, 'viewer@pve', 'correct horse')
    stranger = await logIn(`${node.url}/api2/json`, 'stranger@pve', 'correct horse')
  })
  after(() => node[Symbol.asyncDispose]())

  const mayLook = (is: boolean) =>
    node.api('PUT', '/access/acl', {
      path: '/vms',
      roles: 'Viewer',
      users: 'viewer@pve',
      ...(is ? {} : { delete: '1' }),
    })
  const ask = (params: Record<string, string> = {}, { session = viewer, format = 'json', of = guest } = {}) =>
    publicPort(`${node.url}/api2/${format}`, proofOf(session))(`${of}/spiceproxy`, ...method('POST'), ...form(params))
  const opened = async (): Promise<ViewerFacts> => {
    const reply = await ask()
    assert.equal(reply.status, 200, `${reply.reason} ${reply.body}`)
    return reply.data as ViewerFacts
  }
  const portOf = ({ proxy }: ViewerFacts) => Number(new URL(proxy).port)
  const door = (facts: ViewerFacts) => askProxy(portOf(facts), `${facts.host}:${facts['tls-port']}`)
  const pem = ({ ca }: ViewerFacts) => ca.replaceAll('\\n', '\n')
  const human = async (command: string) => String(await node.api('POST', `${guest}/monitor`, { command }))
  const tasks = async () =>
    (await node.api('GET', `${at}/tasks`, { source: 'all', typefilter: 'spiceproxy' })) as { upid: string }[]
  /** How the task ended. */
  const ended = (upid: string) =>
    waitFor(
      async () => {
        const task = await node.api('GET', `${at}/tasks/${encodeURIComponent(upid)}/status`)
        return (task as { exitstatus?: string }).exitstatus ?? false
      },
      { what: `end of ${upid}`, timeoutMs: 60_000 },
    )
  /** Opens it, and tells its task. */
  const withTask = async <T>(open: () => Promise<T>): Promise<[T, string]> => {
    const before = new Set((await tasks()).map(({ upid }) => upid))
    const made = await open()
    const [task, ...others] = (await tasks()).filter(({ upid }) => !before.has(upid))
    assert.ok(task !== undefined && others.length === 0)
    return [made, task.upid]
  }
  const screenOfQemu = async (): Promise<Canvas> => {
    const file = `/run/hakobune-test/${node.settings.instance}/guests/100/dump.ppm`
    await human(`screendump ${file}`)
    return readPpm(await readFile(file))
  }

  suite('virt-viewer', () => {
    let desk: Desk
    before(async () => (desk = await startDesk(await screenOfQemu())))
    after(() => desk[Symbol.asyncDispose]())

    test('shows what QEMU has drawn, by the file the node hands out', async () => {
      const [reply, upid] = await withTask(() => ask({}, { format: 'spiceconfig' }))
      const { status, reason, headers, body } = reply
      assert.equal(status, 200, reason)
      assert.equal(headers['content-type'], 'application/x-virt-viewer;charset=UTF-8')
      assert.match(body, /^\[virt-viewer\]\ntype=spice\ntitle=VM 100 - t100\nhost=/)
      assert.match(upid, /:spiceproxy:100:viewer@pve:$/)
      const program = await desk.open(body)
      const isSeen = async () => {
        const [shown, drawn] = [await desk.shown(), await screenOfQemu()]
        const lit = litIn(drawn)
        assert.ok(lit > 500 && lit < drawn.width * drawn.height * 0.5, `${lit} pixels are lit`)
        // The cursor blinks.
        return rowsApart(shown, drawn) <= 8
      }
      await waitFor(isSeen, { what: 'the screen QEMU has drawn', timeoutMs: 60_000, everyMs: 200 }).catch(
        (cause: unknown) => {
          throw new Error(`the viewer said:\n${program.said()}`, { cause })
        },
      )
      assert.equal(await program.hasFile(), false)
      // Each came through the proxy by itself.
      const wanted = ['main', 'display', 'inputs', 'cursor', 'playback', 'usbredir']
      const isOpen = async () => {
        const names = [...(await human('info spice')).matchAll(/channel name: (\w+)/g)].map(([, name]) => name)
        return wanted.every((one) => names.includes(one))
      }
      await waitFor(isOpen, { what: wanted.join(', '), timeoutMs: 60_000, everyMs: 200 })
      await node.api('DELETE', `${at}/tasks/${encodeURIComponent(upid)}`)
      await waitFor(program.hasEnded, { what: 'the end of the viewer', timeoutMs: 60_000 })
      assert.equal(await ended(upid), 'stopped')
    })

    test('is told by the command line, and a second viewer takes the place of the first', async () => {
      const first = await desk.open((await ask({}, { format: 'spiceconfig' })).body)
      const names = async () => (await human('info spice')).match(/channel name: \w+/g) ?? []
      await waitFor(async () => (await names()).length > 3, { what: 'the first viewer', timeoutMs: 60_000 })
      const hako = [process.execPath, join(import.meta.dirname, '../../src/cli/main.ts'), 'vm', 'spice', '100'] as const
      const { stdout } = await machine().run(hako, { env: { ...compiled, HAKO_RUN_DIR: node.settings.runDir } })
      assert.match(stdout, /^\[virt-viewer\]\ntype=spice\n[^]*\nproxy=http:\/\/127\.0\.0\.1:\d+\n/)
      const second = await desk.open(stdout)
      await waitFor(first.hasEnded, { what: 'the end of the first', timeoutMs: 60_000 })
      await waitFor(async () => (await names()).length > 3, { what: 'the second viewer', timeoutMs: 60_000 })
      assert.equal(second.hasEnded(), false)
      await second.close()
    })
  })

  test('the reply names the guest, the way to it, and the certificate of this run of it', async () => {
    const facts = await opened()
    assert.deepEqual([facts.type, facts.title], ['spice', 'VM 100 - t100'])
    assert.match(facts.host, /^[0-9a-f]{8}\.100\.[a-z2-7]{52}\.[a-z2-7]{51}\.spice$/)
    assert.equal(new URL(facts.proxy).hostname, '127.0.0.1')
    assert.equal(facts['host-subject'], 'CN=VM 100,O=Hakobune')
    assert.equal(new X509Certificate(pem(facts)).subject, 'CN=VM 100\nO=Hakobune')
    const other = (await ask({ proxy: '2001:db8::7' })).data as ViewerFacts
    assert.equal(other.proxy, `http://[2001:db8::7]:${portOf(facts)}`)
    // Whoever was told first can still connect.
    assert.equal(other.password, facts.password)
    assert.notEqual(other.host, facts.host)
    assert.deepEqual(Object.keys((await ask({ proxy: 'no such name' })).json.errors ?? {}), ['proxy'])
    assert.equal(((await node.api('GET', `${guest}/status/current`)) as { spice?: number }).spice, 1)
  })

  test('QEMU itself asks for the password, which ends; its key lies nowhere, and no argument says a secret', async () => {
    const facts = await opened()
    const enter = async (password: string) => {
      const { status, socket } = await door(facts)
      assert.equal(status, 200)
      const tls = await beginTls(socket, pem(facts))
      const isIn = await knock(tls, password)
      tls.destroy()
      return isIn
    }
    // One viewer comes with many connections by one ticket, and goes with the first: it stays until the end.
    const { socket } = await door(facts)
    const main = await beginTls(socket, pem(facts))
    assert.equal(await enter('wrong'), false)
    assert.equal(await enter(''), false)
    assert.equal(await enter(facts.password), true)
    await human('expire_password spice now')
    assert.equal(await enter(facts.password), false)
    main.destroy()
    const runDir = `/run/hakobune-test/${node.settings.instance}/guests/100`
    await assert.rejects(access(join(runDir, 'server-key.pem')), /ENOENT/)
    const { pid } = (await node.api('GET', `${guest}/status/current`)) as { pid: number }
    const argv = await readFile(`/proc/${pid}/cmdline`, 'utf8')
    assert.match(argv, /x509-dir/)
    assert.ok(!argv.includes(facts.password))
  })

  test('the proxy leads to the guest of the ticket, and nowhere else', async () => {
    const facts = await opened()
    const port = portOf(facts)
    let visits = 0
    const bystander = createServer((socket) => {
      visits += 1
      socket.destroy()
    }).listen(0, '127.0.0.1')
    await once(bystander, 'listening')
    const place = bystander.address()
    assert.ok(typeof place === 'object' && place !== null)
    const asked = async (host: string) => {
      const { status, reason, socket } = await askProxy(port, host)
      socket.destroy()
      return { status, reason }
    }
    const forged = facts.host.replace(/^(.{12})./, (_, kept: string) => `${kept}${facts.host[12] === 'a' ? 'b' : 'a'}`)
    const refused = await Promise.all([
      asked(`${forged}:${facts['tls-port']}`),
      asked(`${facts.host.replace('.100.', '.101.')}:${facts['tls-port']}`),
      asked(`${facts.host}:${facts['tls-port'] + 1}`),
      asked(`127.0.0.1:${place.port}`),
      asked(`localhost:${node.settings.apiPort}`),
    ])
    for (const { status, reason } of refused) {
      assert.deepEqual([status, reason], [401, 'permission denied - invalid SPICE ticket'])
    }
    assert.equal((await asked('unix:/run/x')).status, 400)
    const { status, socket } = await askProxy(port, `http://127.0.0.1:${place.port}/`, 'GET')
    socket.destroy()
    assert.equal(status, 405)
    assert.equal(visits, 0)
    bystander.close()
  })

  test('a ticket is for one viewer, and for a user who may still look', async () => {
    const [facts, upid] = await withTask(opened)
    const { socket } = await door(facts)
    const main = await beginTls(socket, pem(facts))
    main.destroy()
    assert.equal(await ended(upid), 'OK')
    // Answered late.
    const again = door(facts)
    const late = await opened()
    await mayLook(false)
    const forbidden = await door(late)
    assert.deepEqual([forbidden.status, forbidden.reason], [403, 'Permission check failed (/vms/100, VM.Console)'])
    forbidden.socket.destroy()
    await mayLook(true)
    const reply = await ask({}, { session: stranger })
    assert.equal(reply.status, 403)
    assert.match(reply.reason, /^Permission check failed \(\/vms\/100, VM\.Console\)/)
    const { status, socket: refused } = await again
    refused.destroy()
    assert.equal(status, 401)
  })

  test('a change of the display waits for the next start, and a guest without SPICE says so', async () => {
    const change = (params: Record<string, string>) => node.api('PUT', `${guest}/config`, params)
    await change({ vga: 'qxl', usb1: 'SPICE', spice_enhancements: 'videostreaming=all' })
    const items = (await node.api('GET', `${guest}/pending`)) as { key: string; pending?: string }[]
    const pending = items.flatMap(({ key, pending: value }) => (value === undefined ? [] : [[key, value]]))
    assert.deepEqual(Object.fromEntries(pending), {
      vga: 'qxl',
      usb1: 'SPICE',
      spice_enhancements: 'videostreaming=all',
    })
    await assert.rejects(change({ vga: 'std' }), (fault) => isFault(fault) && 'usb0' in (fault.fields ?? {}))
    assert.equal((await ask()).status, 200)
    const bare = { memory: '16', balloon: '0', vmid: '102' }
    await node.task(await node.api('POST', `${at}/qemu`, bare))
    const reason = async () => (await ask({}, { of: `${at}/qemu/102` })).reason
    assert.equal(await reason(), 'VM 102 not running')
    await node.task(await node.api('POST', `${at}/qemu/102/status/start`))
    assert.equal(await reason(), "VM 102 has no SPICE: its display is 'std'")
    await node.task(await node.api('POST', `${at}/qemu/102/status/stop`))
  })
})
