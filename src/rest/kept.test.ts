/** A reply is given again exactly as long as nothing it follows from has changed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { array, optional, string } from '#base/schema/schema.ts'
import { createDispatcher } from './dispatch.ts'
import { anyone, endpointsOf, type Identity } from './endpoint.ts'

const person = (user: string): Identity => ({ user, authId: user })

function world() {
  const state = { basis: 'one', made: 0 }
  const endpoint = endpointsOf<{ who: string }>()
  const list = endpoint({
    method: 'GET',
    path: '/list',
    description: 'A list that costs something.',
    params: { type: optional(string({ description: 'Kind.', maxLength: 10 })) },
    permission: anyone,
    returns: array(string()),
    basis: async () => state.basis,
    handle: ({ type = 'all' }, { who }) => {
      state.made += 1
      return [`${state.basis} ${type} for ${who}`, 'x'.repeat(5000)]
    },
  })
  const dispatcher = createDispatcher<{ who: string }>({
    endpoints: [list],
    judge: { isRoot: () => false, privilegesOn: async () => new Map() },
    makeCall: ({ who }) => ({ who: who?.authId ?? '' }),
    node: 'one',
    log: silentLog,
    random: systemRandom,
  })
  const ask = async (user: string, query = '', takesGzip = false) => {
    const reply = await dispatcher.handle({
      method: 'GET',
      path: '/list',
      query,
      format: 'json',
      authenticate: async () => person(user),
      body: async () => ({}),
      signal: new AbortController().signal,
      remoteAddress: '',
      takesGzip,
    })
    return { ...reply, first: (JSON.parse(reply.body) as { data: string[] }).data[0] }
  }
  return { state, ask }
}

test('the same caller with the same parameters is answered from what was made', async () => {
  const { state, ask } = world()
  assert.equal((await ask('ann@pve')).first, 'one all for ann@pve')
  assert.equal((await ask('ann@pve')).first, 'one all for ann@pve')
  assert.equal(state.made, 1)
})

test('another caller, other parameters and another basis have answers of their own', async () => {
  const { state, ask } = world()
  await ask('ann@pve')
  assert.equal((await ask('bob@pve')).first, 'one all for bob@pve')
  assert.equal((await ask('ann@pve', 'type=vm')).first, 'one vm for ann@pve')
  state.basis = 'two'
  assert.equal((await ask('ann@pve')).first, 'two all for ann@pve')
  assert.equal(state.made, 4)
})

test('who takes gzip gets the same answer packed, and who does not gets it plain', async () => {
  const { state, ask } = world()
  const plain = await ask('ann@pve')
  assert.equal(plain.packed, undefined)
  const packed = await ask('ann@pve', '', true)
  assert.equal(gunzipSync(packed.packed ?? Buffer.alloc(0)).toString(), plain.body)
  assert.equal((await ask('ann@pve', '', true)).packed, packed.packed, 'packed once')
  assert.equal(state.made, 1)
})

test('what is kept has a bound, and what was not asked for the longest goes first', async () => {
  const { state, ask } = world()
  for (let at = 0; at < 8000; at += 1) await ask(`user${at}@pve`)
  await ask('user7999@pve')
  assert.equal(state.made, 8000)
  await ask('user0@pve')
  assert.equal(state.made, 8001)
})
