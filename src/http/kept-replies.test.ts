/** What the front gives again, and what it asks for anew: real TLS, a daemon that counts. */
import assert from 'node:assert/strict'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { describe, test } from 'node:test'
import { type Clock, systemClock, waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { object, optional, string } from '#base/schema/schema.ts'
import { type Answered, type CallFacts, createDispatcher } from '#rest/dispatch.ts'
import { anyone, endpointsOf, world } from '#rest/endpoint.ts'
import { memoryMark } from '#store/mark.ts'
import { curl } from '../../test/contract/curl.ts'
import { demoJudge, demoNode, ticketOf } from '../../test/contract/demo.ts'
import { KeptReplies } from './kept-replies.ts'

const asUser = (user: string) => ['-b', `PVEAuthCookie=${ticketOf(user)}`]
const asToken = ['-H', 'Authorization: PVEAPIToken=root@pam!ci=letmein']

/** A node whose wall clock stands in the middle of a second until it is moved. */
async function countingNode() {
  let now = 1_800_000_000_400
  const clock: Clock = { ...systemClock, now: () => now }
  const mark = memoryMark()
  const answered: Answered[] = []
  const state = { text: 'one', made: 0, fails: false, during: () => {} }
  const endpoint = endpointsOf<CallFacts>()
  const handle = ({ pad = '' }: { pad?: string | undefined }, { who }: CallFacts) => {
    state.made += 1
    const { text } = state
    state.during()
    if (state.fails) throw new Fault('conflict', 'not now')
    return { text, who: who?.authId ?? 'nobody', pad: pad.repeat(1000) }
  }
  const shape = {
    method: 'GET' as const,
    description: 'A thing.',
    params: { pad: optional(string({ maxLength: 10 })) },
    permission: anyone,
    returns: object({ text: string(), who: string(), pad: string() }),
    handle,
  }
  const dispatcher = createDispatcher<CallFacts>({
    endpoints: [
      endpoint({ ...shape, path: '/kept', isKept: true }),
      endpoint({ ...shape, path: '/live' }),
      endpoint({ ...shape, path: '/open', permission: world, isKept: true }),
      endpoint({ ...shape, method: 'DELETE', path: '/kept', isKept: true }),
    ],
    judge: demoJudge,
    makeCall: (facts) => facts,
    node: 'demo',
    log: silentLog,
    random: systemRandom,
    clock,
    mark: mark.read,
    observe: () => (one) => answered.push(one),
  })
  const node = await demoNode({ changes: { dispatcher, clock }, mark: mark.read })
  const ask = async (path: string, ...more: readonly string[]) => {
    const got = await curl([...(more.length === 0 ? asToken : more), `${node.url}/api2/json${path}`])
    return { ...got, data: (JSON.parse(got.body) as { data: { text: string; who: string } }).data }
  }
  return {
    ask,
    state,
    mark,
    answered,
    forward: (ms: number) => void (now += ms),
    [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
  }
}

describe('a reply is given again', () => {
  test('to the same caller within the second, byte for byte', async () => {
    await using node = await countingNode()
    const first = await node.ask('/kept')
    const again = await node.ask('/kept')
    assert.equal(node.state.made, 1)
    assert.deepEqual(again, first)
  })

  test('packed to who takes that, plain to who does not', async () => {
    await using node = await countingNode()
    const packed = () => node.ask('/kept?pad=x', ...asToken, '--compressed')
    const first = await packed()
    assert.equal(first.headers['content-encoding'], 'gzip')
    assert.deepEqual(await packed(), first)
    const plain = await node.ask('/kept?pad=x')
    assert.equal(plain.headers['content-encoding'], undefined)
    assert.deepEqual(plain.data, first.data)
    assert.equal(node.state.made, 2)
  })

  test('and the daemon hears how often, for its account of calls', async () => {
    await using node = await countingNode()
    for (let at = 0; at < 4; at += 1) await node.ask('/kept')
    await waitFor(() => node.answered.length === 2, { what: 'word of the front', timeoutMs: 10_000 })
    assert.deepEqual(
      node.answered.map(({ endpoint, status, who, remoteAddress, times }) => [
        endpoint,
        status,
        who?.authId,
        remoteAddress,
        times,
      ]),
      [
        ['/kept', 200, 'root@pam!ci', '127.0.0.1', undefined],
        ['/kept', 200, 'root@pam!ci', '127.0.0.1', 3],
      ],
    )
  })
})

describe('the daemon is asked', () => {
  test('after any change, and by the very next request', async () => {
    await using node = await countingNode()
    for (const text of ['one', 'two', 'three']) {
      node.state.text = text
      node.mark.touch()
      assert.equal((await node.ask('/kept')).data.text, text)
    }
    assert.equal(node.state.made, 3)
  })

  test('when something changed while the reply was made, even if the reply does not hold it', async () => {
    await using node = await countingNode()
    node.state.during = () => {
      node.state.text = 'two'
      node.mark.touch()
      node.state.during = () => {}
    }
    assert.equal((await node.ask('/kept')).data.text, 'one')
    assert.equal((await node.ask('/kept')).data.text, 'two')
  })

  test('when the second is over, and when the clock was set back', async () => {
    await using node = await countingNode()
    await node.ask('/kept')
    node.forward(599)
    await node.ask('/kept')
    assert.equal(node.state.made, 1)
    node.forward(1)
    await node.ask('/kept')
    assert.equal(node.state.made, 2)
    node.forward(-60_000)
    await node.ask('/kept')
    assert.equal(node.state.made, 3)
  })

  test('by everybody else, and for everything else', async () => {
    await using node = await countingNode()
    const bob = await node.ask('/kept', ...asUser('bob@pve'))
    const ann = await node.ask('/kept', ...asUser('ann@pve'))
    assert.deepEqual([bob.data.who, ann.data.who], ['bob@pve', 'ann@pve'])
    const stranger = await node.ask('/kept', '-b', 'PVEAuthCookie=PVE:ann@pve:forged')
    assert.equal(stranger.status, 401)
    await node.ask('/kept?pad=x', ...asUser('ann@pve'))
    assert.equal(node.state.made, 3)
    for (const path of ['/live', '/open']) {
      const before: number = node.state.made
      await node.ask(path)
      await node.ask(path)
      assert.equal(node.state.made, before + 2, path)
    }
    const before: number = node.state.made
    for (let at = 0; at < 2; at += 1) await node.ask('/kept', ...asToken, '-X', 'DELETE')
    assert.equal(node.state.made, before + 2, 'only reads are kept')
  })

  test('as long as it fails', async () => {
    await using node = await countingNode()
    node.state.fails = true
    assert.equal((await node.ask('/kept')).status, 500)
    node.state.fails = false
    assert.equal((await node.ask('/kept')).status, 200)
  })
})

test('what is kept has a bound, and the oldest goes first', () => {
  const kept = new KeptReplies({ clock: { ...systemClock, now: () => 500 }, mark: () => 'm', given: () => {} })
  const body = Buffer.alloc(10 << 20)
  const keep = (url: string) => {
    const reply = {
      status: 200,
      reason: 'OK',
      contentType: 'text/plain',
      body,
      keep: { id: 1, mark: 'm', until: 1000 },
    }
    kept.keep(requestFor(url), reply, reply)
  }
  const isKept = (url: string) => kept.give(requestFor(url), new ServerResponse(requestFor(url)))
  for (const url of ['/1', '/2', '/3']) keep(url)
  assert.deepEqual(['/1', '/2', '/3'].map(isKept), [true, true, true])
  keep('/4')
  assert.deepEqual(['/1', '/2', '/3', '/4'].map(isKept), [false, true, true, true])
})

function requestFor(url: string): IncomingMessage {
  return Object.assign(new IncomingMessage(new Socket()), { url, method: 'GET' })
}
