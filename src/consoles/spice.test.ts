import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { test } from 'node:test'
import { type Clock, systemClock, waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { consoleLimits } from './limits.ts'
import { ConsoleService } from './service.ts'
import { lineWithTwoEnds } from './small-console.ts'
import { SpiceService } from './spice-service.ts'
import { SpiceSession } from './spice-session.ts'

const until = (is: () => boolean, what: string) => waitFor(is, { what, timeoutMs: 5_000 })

/** A guest whose channels the test holds the far ends of. */
function guest() {
  const lines: Duplex[] = []
  const connect = async () => {
    const [line, far] = lineWithTwoEnds()
    lines.push(far)
    far.resume()
    return line
  }
  return { lines, session: new SpiceSession({ connect, clock: systemClock }) }
}

function viewer(): [Duplex, Duplex] {
  const [client, far] = lineWithTwoEnds()
  far.resume()
  return [client, far]
}

test('all channels of a viewer come by one ticket, and go with the first', async () => {
  const { session, lines } = guest()
  const ended = Promise.withResolvers<string>()
  const service = new ConsoleService({ clock: systemClock, log: silentLog })
  const { port } = service.promise('bob@pve')
  assert.equal(service.authIdAt(port), 'bob@pve')
  service.open(port, {
    ticket: 'ticket',
    task: { log: () => {}, signal: new AbortController().signal, end: async (status) => ended.resolve(status) },
    serve: (main) => session.serve(main),
    serveMore: (channel) => session.serveMore(channel),
    mayStill: async () => true,
  })
  const channels = [viewer(), viewer(), viewer()]
  for (const [client] of channels) service.take(port, 'ticket')(client)
  await until(() => lines.length === 3, 'three channels')
  assert.throws(
    () => service.take(port, 'other'),
    (fault) => isFault(fault, 'missing'),
  )
  // One of the others goes: the rest stays.
  channels[1]?.[1].end()
  await until(() => lines.filter((line) => line.readableEnded).length === 1, 'the end of one')
  assert.ok(!channels[0]?.[0].destroyed && !channels[2]?.[0].destroyed)
  channels[0]?.[1].end()
  assert.equal(await ended.promise, 'OK')
  await until(() => channels[2]?.[0].destroyed === true, 'the end of the last')
  assert.throws(
    () => service.take(port, 'ticket'),
    (fault) => isFault(fault, 'missing'),
  )
  assert.equal(service.authIdAt(port), undefined)
})

test('a viewer has only so many channels, and a guest that cannot be reached says why', async () => {
  const { session, lines } = guest()
  const [main] = viewer()
  void session.serve(main)
  for (let count = 1; count < consoleLimits.spiceChannels; count += 1) void session.serveMore(viewer()[0])
  await until(() => lines.length === consoleLimits.spiceChannels, 'all channels')
  await assert.rejects(session.serveMore(viewer()[0]), (fault) => isFault(fault, 'exhausted'))
  main.destroy()
  const connect = () => Promise.reject(new Fault('conflict', 'VM 100 not running'))
  await assert.rejects(new SpiceSession({ connect, clock: systemClock }).serve(viewer()[0]), /not running/)
})

test('a password stays as long as it may be in somebody’s hands, and is each run’s own', () => {
  let nowMs = 1_000
  const clock: Clock = { ...systemClock, monotonic: () => nowMs }
  const service = new SpiceService({ clock, random: systemRandom })
  const first = service.passwordFor('run 1')
  assert.match(first, /^\w{24}$/)
  nowMs += consoleLimits.spiceWaitMs - 1
  assert.equal(service.passwordFor('run 1'), first)
  assert.notEqual(service.passwordFor('run 2'), first)
  nowMs += consoleLimits.spiceWaitMs - 1
  assert.equal(service.passwordFor('run 1'), first)
  nowMs += consoleLimits.spiceWaitMs
  assert.notEqual(service.passwordFor('run 1'), first)
})

test('where SPICE is not served, the reason is said', () => {
  const service = new SpiceService({ clock: systemClock, random: systemRandom })
  assert.throws(
    () => service.port(),
    (fault) => isFault(fault, 'unavailable') && /HAKO_SPICE_PORT/.test(fault.remedy ?? ''),
  )
  service.serveAt(() => ({ fault: 'port 3128 on 127.0.0.1 is in use by another program' }))
  assert.throws(() => service.port(), /SPICE is not served: port 3128 on 127\.0\.0\.1 is in use/)
  service.serveAt(() => ({ port: 3128 }))
  assert.equal(service.port(), 3128)
})
