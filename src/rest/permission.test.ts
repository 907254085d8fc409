/** Who may, who may not, and what the refusal says. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import {
  all,
  any,
  anyone,
  check,
  checkAny,
  type Identity,
  type Judge,
  mayModify,
  type Permission,
  rootOnly,
  self,
  world,
} from './endpoint.ts'
import { demand, paramsOf, type Values } from './permission.ts'

const root: Identity = { user: 'root@pam', authId: 'root@pam' }
const rootToken: Identity = { user: 'root@pam', token: 'root@pam!ci', authId: 'root@pam!ci' }
const ann: Identity = { user: 'ann@pve', authId: 'ann@pve' }

function judgeWith(rights: Readonly<Record<string, readonly string[]>>): Judge {
  return {
    isRoot: ({ user }) => user === 'root@pam',
    privilegesOn: async (_, path) => new Map((rights[path] ?? []).map((name) => [name, true])),
  }
}

/** Nothing when it passes, else the text of the refusal. */
async function refusal(
  permission: Permission,
  values: Values,
  who: Identity,
  rights: Readonly<Record<string, readonly string[]>> = {},
): Promise<string | undefined> {
  try {
    await demand(permission, values, who, judgeWith(rights))
    return undefined
  } catch (error) {
    assert.ok(isFault(error, 'denied'))
    return error.message
  }
}

test('everybody, and everybody who is logged in', async () => {
  assert.equal(await refusal(world, {}, ann), undefined)
  assert.equal(await refusal(anyone, {}, ann), undefined)
})

describe('privileges on a path', () => {
  const start = check('VM.PowerMgmt', '/vms/{vmid}')

  test('held is held', async () => {
    assert.equal(await refusal(start, { vmid: 100 }, ann, { '/vms/100': ['VM.PowerMgmt'] }), undefined)
  })

  test('the refusal names path and privilege as clients know it', async () => {
    assert.equal(await refusal(start, { vmid: 100 }, ann), 'Permission check failed (/vms/100, VM.PowerMgmt)')
    const both = check(['Sys.Audit', 'Sys.Modify'], '/')
    assert.equal(await refusal(both, {}, ann, { '/': ['Sys.Audit'] }), 'Permission check failed (/, Sys.Modify)')
    const either = checkAny(['Datastore.Audit', 'Datastore.Allocate'], '/storage/{storage}')
    const text = 'Permission check failed (/storage/local, Datastore.Audit|Datastore.Allocate)'
    assert.equal(await refusal(either, { storage: 'local' }, ann), text)
    assert.equal(
      await refusal(either, { storage: 'local' }, ann, { '/storage/local': ['Datastore.Allocate'] }),
      undefined,
    )
  })

  test('root in person needs none, a token of root needs them', async () => {
    assert.equal(await refusal(start, { vmid: 100 }, root), undefined)
    assert.notEqual(await refusal(start, { vmid: 100 }, rootToken), undefined)
  })

  test('a path whose parameter is absent is held by nobody, whatever is held above it', async () => {
    const inPool = check('VM.Allocate', '/pool/{pool}')
    assert.notEqual(await refusal(inPool, {}, ann, { '/pool': ['VM.Allocate'], '/': ['VM.Allocate'] }), undefined)
    assert.notEqual(await refusal(inPool, { pool: '' }, ann, { '/pool': ['VM.Allocate'] }), undefined)
    assert.notEqual(await refusal(inPool, { pool: ['a'] }, ann, { '/pool/a': ['VM.Allocate'] }), undefined)
  })

  test('slashes are tidied before the question is asked', async () => {
    assert.equal(
      await refusal(mayModify('{path}'), { path: '//vms//100/' }, ann, { '/vms/100': ['VM.Allocate'] }),
      undefined,
    )
  })
})

test('root@pam alone means in person', async () => {
  assert.equal(await refusal(rootOnly, {}, root), undefined)
  assert.equal(await refusal(rootOnly, {}, rootToken), 'Permission check failed (user != root@pam)')
  assert.equal(await refusal(rootOnly, {}, ann), 'Permission check failed (user != root@pam)')
})

test('oneself is the user, not a token of the user', async () => {
  assert.equal(await refusal(self('userid'), { userid: 'ann@pve' }, ann), undefined)
  assert.notEqual(await refusal(self('userid'), { userid: 'bob@pve' }, ann), undefined)
  const annToken = { user: 'ann@pve', token: 'ann@pve!a', authId: 'ann@pve!a' }
  assert.notEqual(await refusal(self('userid'), { userid: 'ann@pve' }, annToken), undefined)
})

test('who may make objects somewhere may also set rights there', async () => {
  const modify = mayModify('{path}')
  const cases = [
    ['/storage/local', 'Datastore.Allocate'],
    ['/vms/100', 'VM.Allocate'],
    ['/pool/dev', 'Pool.Allocate'],
    ['/nodes/lab', 'Permissions.Modify'],
  ] as const
  for (const [path, privilege] of cases) {
    assert.equal(await refusal(modify, { path }, ann, { [path]: [privilege] }), undefined)
  }
  // The maker's privilege counts on an object, not on the whole kind.
  assert.notEqual(await refusal(modify, { path: '/vms' }, ann, { '/vms': ['VM.Allocate'] }), undefined)
})

describe('combinations', () => {
  const create = any(check('VM.Allocate', '/vms/{vmid}'), check('VM.Allocate', '/pool/{pool}'))

  test('one alternative is enough', async () => {
    assert.equal(await refusal(create, { vmid: 100, pool: 'dev' }, ann, { '/pool/dev': ['VM.Allocate'] }), undefined)
    assert.equal(await refusal(create, { vmid: 100 }, ann, { '/vms/100': ['VM.Allocate'] }), undefined)
  })

  test('the refusal of alternatives names the first', async () => {
    assert.equal(await refusal(create, { vmid: 100 }, ann), 'Permission check failed (/vms/100, VM.Allocate)')
    assert.equal(await refusal(any(self('userid'), self('userid')), { userid: 'x' }, ann), 'Permission check failed')
  })

  test('all of several means all', async () => {
    const both = all(check('A.B', '/a'), check('C.D', '/c'))
    assert.equal(await refusal(both, {}, ann, { '/a': ['A.B'] }), 'Permission check failed (/c, C.D)')
    assert.equal(await refusal(both, {}, ann, { '/a': ['A.B'], '/c': ['C.D'] }), undefined)
  })

  test('all parameters a permission names are known', () => {
    assert.deepEqual(paramsOf(all(create, self('userid'), mayModify('/{a}/{b}'), world, rootOnly, anyone)), [
      'vmid',
      'pool',
      'userid',
      'a',
      'b',
    ])
  })
})
