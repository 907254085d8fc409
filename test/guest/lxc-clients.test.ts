/** What people and programs reach of a running container beyond its life: its terminal drawn as a screen. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setDefaultCACertificates } from 'node:tls'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Opened, rootSession, terminalAt } from './console-client.ts'
import { screenAt } from './screen-client.ts'

suite('a container’s clients', { timeout: 120_000 }, () => {
  let node: TestNode
  let lxc: string
  before(async () => {
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    await offerTemplate(node.settings)
    const options = {
      memory: '64',
      hostname: 'first',
      cmode: 'shell',
      rootfs: 'local:0',
      mp0: 'local:0,mp=/srv/more',
      start: '1',
    }
    await node.task(await node.api('POST', lxc, { vmid: '100', ostemplate: template, ...options }))
    setDefaultCACertificates([await readFile(join(node.settings.stateDir, 'keys/tls.pem'), 'utf8')])
  })
  after(() => node[Symbol.asyncDispose]())

  const run = async (vmid: number, ...command: string[]) =>
    (await node.api('POST', `/hako/containers/${node.settings.node}/${vmid}/exec`, { command })) as {
      exitcode: number
      'out-data': string
      'err-data': string
    }
  const refusal = async (act: Promise<unknown>) => {
    const fault = await act.then(
      () => assert.fail('it was not refused'),
      (error: unknown) => error,
    )
    if (isFault(fault)) return fault
    throw fault
  }

  test('see its terminal by VNC, in the size they ask for, and type into it', async () => {
    const session = await rootSession(node)
    const wish = { websocket: '1', width: '640', height: '400' }
    const opened = (await node.api('POST', `${lxc}/100/vncproxy`, wish)) as Opened
    assert.match(opened.upid, /:vncproxy:100:root@pam:$/)
    const place = `${node.url.replace('https', 'wss')}/api2/json${lxc}/100/vncwebsocket?port=${opened.port}&vncticket=${encodeURIComponent(opened.ticket)}`
    const screen = await screenAt(place, session.ticket, opened.password ?? '')
    assert.deepEqual([screen.width, screen.height], [640, 400])
    const isTyped = async () => (await run(100, '/bin/cat', '/root/drawn'))['out-data'] === 'first 30 106\n'
    // The shell may still be starting when the first letters come.
    await waitFor(
      async () => {
        screen.type('echo first $(stty size) > /root/drawn\n')
        return isTyped()
      },
      { what: 'what was typed', timeoutMs: 20_000, everyMs: 500 },
    )
    // It ends with the shell on it.
    screen.type('exit\n')
    await node.task(opened.upid)
    screen.close()
  })

  for (const [cmode, device] of [
    ['console', '/dev/console'],
    ['tty', '/dev/tty1'],
  ] as const) {
    test(`are joined to its ${cmode} where its configuration says so, in the size of their window`, async () => {
      await node.api('PUT', `${lxc}/100/config`, { cmode })
      const session = await rootSession(node)
      const opened = (await node.api('POST', `${lxc}/100/termproxy`)) as Opened
      const place = `${node.url.replace('https', 'wss')}/api2/json${lxc}/100/vncwebsocket?port=${opened.port}&vncticket=${encodeURIComponent(opened.ticket)}`
      const terminal = await terminalAt(place, session.ticket, opened)
      await terminal.until(/^OK/)
      // What is said before it is joined nobody hears.
      await waitFor(
        async () => {
          await run(100, '/bin/sh', '-c', `echo said on $(hostname) > ${device}`)
          return /said on first/.test(terminal.text())
        },
        { what: 'what was said', timeoutMs: 20_000, everyMs: 200 },
      )
      terminal.send('1:101:33:')
      const size = async () => (await run(100, '/bin/sh', '-c', `stty size < ${device}`))['out-data']
      await waitFor(async () => (await size()) === '33 101\n', {
        what: 'the size',
        timeoutMs: 10_000,
        everyMs: 50,
      })
      terminal.close()
    })
  }

  test('hear at once of a container that does not run', async () => {
    await node.task(await node.api('POST', lxc, { vmid: '101', ostemplate: template, rootfs: 'local:0' }))
    assert.equal((await refusal(node.api('POST', `${lxc}/101/vncproxy`))).message, 'CT 101 not running')
  })
})
