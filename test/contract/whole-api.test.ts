/**
 * The API of a real node as a whole. The lists of endpoints, parameters and rules are the endpoints themselves, so a new endpoint is tested by existing.
 */
import assert from 'node:assert/strict'
import { before, after, describe, test } from 'node:test'
import { allEndpoints } from '#api/root.ts'
import { describeFamilies } from '#rest/describe.ts'
import type { Endpoint } from '#rest/endpoint.ts'
import type { Properties } from '#base/schema/schema.ts'
import { callerOver } from './caller.ts'
import { fuzzFindings, unboundedParameters } from './fuzz.ts'
import { bugFinding, rightsFindings, told } from './rights.ts'
import { type Caller, callOf, gather, type Known, samplesOf } from './samples.ts'
import { seedNode, veiled } from './seeded-node.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

let node: WholeNode
/** Names of things that are there. */
let real: Known
let asPowerless: Caller
const closing = new AsyncDisposableStack()

before(async () => {
  node = closing.use(await wholeNode())
  ;({ real, asPowerless } = await seedNode(node))
})
after(() => closing.disposeAsync())

describe('who may do what', () => {
  test('strangers and the powerless are refused where nothing is', async () => {
    const known = { node: node.settings.node }
    const findings = await rightsFindings(allEndpoints, { asNobody: callerOver(node.asFront), asPowerless, known })
    assert.deepEqual(findings, [])
    assert.deepEqual(node.bugs(), [])
  })

  test('strangers and the powerless are refused where something is, and it stays as it was', async () => {
    const before = await stateOf(node)
    const asNobody = callerOver(node.asFront)
    const findings = await rightsFindings(allEndpoints, { asNobody, asPowerless, known: real })
    assert.deepEqual(findings, [])
    assert.deepEqual(node.bugs(), [])
    assert.deepEqual(await stateOf(node), before)
  })

  test('rights that depend on parameters are judged before anything is said or done', async () => {
    const further = allEndpoints.filter(({ alsoNeeds }) => alsoNeeds !== undefined)
    const findings = await gather(further, async (endpoint) => {
      const reply = await asPowerless(callOf(endpoint, samplesOf(endpoint.params, real)))
      return reply.status === 403 ? [] : [`${endpoint.method} ${endpoint.path}: ${told(reply)}`]
    })
    assert.deepEqual(findings, [])
  })

  test('no reply tells the powerless a name they may not know', async () => {
    const reads = allEndpoints.filter(({ method }) => method === 'GET')
    const findings = await gather(reads, async (endpoint) => {
      const reply = await asPowerless(callOf(endpoint, samplesOf(endpoint.params, { node: node.settings.node })))
      const text = JSON.stringify(reply.body)
      return text.includes(veiled) ? [`${endpoint.path}: ${text.slice(0, 300)}`] : []
    })
    assert.deepEqual(findings, [])
  })
})

test('every parameter outside its bounds is refused by name, and nothing happens', async () => {
  const before = await stateOf(node)
  const send = callerOver(node.asRoot)
  let calls = 0
  const asRoot: Caller = (call) => {
    calls += 1
    return send(call)
  }
  const findings = await fuzzFindings(allEndpoints, { asRoot, known: real })
  assert.deepEqual(findings, [])
  assert.ok(calls > 5 * allEndpoints.length, `${calls} calls broke the rules of ${allEndpoints.length} endpoints`)
  assert.deepEqual(node.bugs(), [])
  assert.deepEqual(await stateOf(node), before)
})

test('every read of what is there answers as it is described', async () => {
  const reads = allEndpoints.filter(({ method }) => method === 'GET')
  const asRoot = callerOver(node.asRoot)
  const findings = await gather(reads, async (endpoint) => {
    const reply = await asRoot(callOf(endpoint, samplesOf(endpoint.params, real)))
    const wrong = bugFinding(reply)
    return wrong === undefined ? [] : [`${endpoint.path}: ${wrong}`]
  })
  assert.deepEqual(findings, [])
  assert.deepEqual(node.bugs(), [])
})

test('every parameter is bounded', () => {
  assert.deepEqual(unboundedParameters(allEndpoints), [])
})

test('every endpoint and parameter says what it is', () => {
  const findings = allEndpoints.flatMap((endpoint) => {
    const where = `${endpoint.method} ${endpoint.path}`
    const silent = endpoint.description.trim().length < 10 ? [where] : []
    return [...silent, ...undescribed(endpoint.params, where)]
  })
  assert.deepEqual(findings, [])
})

/** Of a family the first member speaks for all. */
function undescribed(properties: Properties, where: string): string[] {
  return Object.entries(describeFamilies(properties))
    .filter(([, { description }]) => typeof description !== 'string' || description.trim() === '')
    .map(([name]) => `${where}: ${name}`)
}

test('every index names what is below it, and every path that leads somewhere has an answer', async () => {
  const asRoot = callerOver(node.asRoot)
  const findings = await gather([...childrenByPath(allEndpoints)], async ([path, children]) => {
    const methods = allEndpoints.filter((endpoint) => plain(endpoint.path) === path)
    const index = methods.find(isIndex)
    if (methods.length === 0) return [`${path}: nothing answers`]
    if (!index) return []
    const reply = await asRoot(callOf(index, samplesOf(index.params, real)))
    if (!Array.isArray(reply.body.data)) return [`${path}: ${told(reply)}`]
    const named = reply.body.data.map((item: Record<string, unknown>) => String(item.name ?? item.subdir)).toSorted()
    const expected = children.toSorted()
    const isSame = JSON.stringify(named) === JSON.stringify(expected)
    return isSame ? [] : [`${path}: says ${JSON.stringify(named)}, below are ${JSON.stringify(expected)}`]
  })
  assert.deepEqual(findings, [])
})

/** A list of names and nothing else. */
function isIndex({ method, returns }: Pick<Endpoint<never>, 'method' | 'returns'>): boolean {
  const keys = Object.keys(returns.items?.properties ?? {})
  return method === 'GET' && keys.length === 1 && (keys[0] === 'name' || keys[0] === 'subdir')
}

/** The literal segments below each path that has any; the root has no name to ask by. */
function childrenByPath(endpoints: readonly { readonly path: string }[]): Map<string, string[]> {
  const children = new Map<string, string[]>()
  for (const { path } of endpoints) {
    const segments = plain(path).split('/').slice(1)
    for (const [at, name] of segments.entries()) {
      const parent = `/${segments.slice(0, at).join('/')}`
      if (at === 0 || name.startsWith('{')) continue
      const known = children.get(parent) ?? []
      if (!known.includes(name)) children.set(parent, [...known, name])
    }
  }
  return children
}

const plain = (path: string): string => path.replace('*}', '}')

/** All that the calls of these tests could have changed. */
async function stateOf({ api, settings }: WholeNode): Promise<unknown> {
  const at = `/nodes/${settings.node}`
  const reads: [string, Record<string, unknown>?][] = [
    [`${at}/tasks`, { source: 'all', limit: 0 }],
    [`${at}/storage/local/content`],
    ['/access/users', { full: 1 }],
    ['/access/groups'],
    ['/access/roles'],
    ['/access/acl'],
    ['/access/tfa'],
    ['/access/domains'],
    ['/storage'],
    ['/pools'],
    ['/cluster/options'],
    ['/cluster/backup'],
    [`${at}/qemu`],
    [`${at}/qemu/${String(real.vmid)}/config`],
    ['/hako/backups'],
  ]
  const state: Record<string, unknown> = {}
  for (const [path, params] of reads) state[path] = (await api('GET', path, params)).data
  return state
}
