/** The descriptions say what the endpoints do. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { integer, indexed, string } from '#base/schema/schema.ts'
import { demoEndpoints } from '../../test/contract/demo-endpoints.ts'
import { describe as describeApi, describeFamilies, describeTree } from './describe.ts'
import { check, checkAny, type Permission } from './endpoint.ts'
import { openApi } from './openapi.ts'

describe("in PVE's words", () => {
  const described = describeApi(demoEndpoints)
  const entry = (method: string, path: string) => {
    const found = described.find((one) => one.method === method && one.path === path)
    assert.ok(found, `${method} ${path}`)
    return found
  }

  test('every endpoint is there, in order', () => {
    assert.equal(described.length, demoEndpoints.length)
    const paths = described.map(({ path }) => path)
    assert.deepEqual(
      paths,
      paths.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
    )
  })

  test('parameters carry their bounds, families their [n]', () => {
    const { params, proxyto } = entry('POST', '/nodes/{node}/qemu')
    assert.deepEqual(params.vmid, {
      type: 'integer',
      description: 'Number of the guest.',
      minimum: 100,
      maximum: 999_999_999,
    })
    assert.equal(params['net[n]']?.optional, true)
    assert.equal(params.net0, undefined)
    const format = params['net[n]']?.format as Record<string, unknown>
    assert.deepEqual(format.virtio, { alias: 'macaddr', keyAlias: 'model' })
    assert.deepEqual(format.model, { type: 'string', enum: ['virtio', 'e1000'], default_key: true })
    assert.equal(proxyto, 'node')
  })

  test('two names that end in digits are no family', () => {
    assert.deepEqual(Object.keys(describeFamilies({ ip4: string(), ip6: string(), a0: string(), a1: integer() })), [
      'ip4',
      'ip6',
      'a0',
      'a1',
    ])
    assert.deepEqual(Object.keys(describeFamilies(indexed('scsi', 3, string()))), ['scsi[n]'])
  })

  test('rights are expressions', () => {
    assert.deepEqual(entry('GET', '/nodes/{node}/qemu/{vmid}/status/current').permissions, {
      check: ['perm', '/vms/{vmid}', ['VM.Audit']],
    })
    assert.deepEqual(entry('DELETE', '/storage/{storage}/content/{volume}').permissions, {
      check: ['perm', '/storage/{storage}', ['Datastore.Allocate', 'Datastore.AllocateSpace'], 'any', 1],
    })
    assert.equal(entry('GET', '/broken').permissions, null)
    assert.deepEqual(entry('GET', '/access/domains').permissions, { user: 'world' })
    assert.deepEqual(entry('PUT', '/access/acl').permissions, { check: ['perm-modify', '{path}'] })
    assert.deepEqual(entry('POST', '/nodes/{node}/qemu').permissions, {
      check: ['or', ['perm', '/vms/{vmid}', ['VM.Allocate']], ['perm', '/pool/{pool}', ['VM.Allocate']]],
      moreInProse: true,
      description: 'Datastore.AllocateSpace on the storage',
    })
  })

  test('rights over a user are told by realm and group, not by a path no ACL has', () => {
    const told = (permission: Permission) => {
      const [one] = demoEndpoints
      assert.ok(one)
      return describeApi([{ ...one, permission }])[0]?.permissions
    }
    const onUser = '/access/users/{userid}'
    const [realm, groups] = [
      ['userid-param', 'Realm.AllocateUser'],
      ['userid-group', ['User.Modify', 'Sys.Audit']],
    ]
    assert.deepEqual(told(checkAny(['User.Modify', 'Sys.Audit'], onUser)), { check: groups })
    assert.deepEqual(told(check('Realm.AllocateUser', onUser)), { check: realm })
    assert.deepEqual(told(check(['Realm.AllocateUser', 'User.Modify', 'Sys.Audit'], onUser)), {
      check: ['and', realm, groups],
    })
  })

  test('as a tree, each path hangs below its parent', () => {
    const tree = describeTree(demoEndpoints)
    const nodes = tree.find(({ text }) => text === 'nodes')
    assert.equal(nodes?.leaf, 0)
    assert.equal(nodes?.children?.[0]?.path, '/nodes/{node}')
    assert.deepEqual(Object.keys(tree.find(({ text }) => text === 'version')?.info ?? {}), ['GET'])
  })
})

describe('as OpenAPI', () => {
  const document = JSON.parse(JSON.stringify(openApi(demoEndpoints, { title: 'Demo', version: '1' }))) as {
    openapi: string
    paths: Record<string, Record<string, Record<string, unknown>>>
  }
  const operations = Object.values(document.paths).flatMap((item) => Object.values(item))

  test('every endpoint is an operation with an id of its own', () => {
    assert.equal(operations.length, demoEndpoints.length)
    assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length)
  })

  test('every parameter of a path is declared there, and nothing else is', () => {
    for (const [path, item] of Object.entries(document.paths)) {
      const named = [...path.matchAll(/\{([\w-]+)\}/g)].map(([, name = '']) => name).toSorted()
      for (const operation of Object.values(item)) {
        const declared = ((operation.parameters ?? []) as { name: string; in: string; required: boolean }[])
          .filter((parameter) => parameter.in === 'path')
          .map(({ name }) => name)
        assert.deepEqual(declared.toSorted(), named)
      }
    }
  })

  test('replies say 1 and 0 where requests may say true', () => {
    const text = JSON.stringify(document.paths['/echo/{id}']?.put)
    assert.match(text, /"flag":\{"enum":\[0,1,true,false\]\}/)
    assert.match(text, /"flag":\{"type":"integer","enum":\[0,1\]\}/)
  })

  test('GET takes its parameters in the query, POST in the body', () => {
    assert.equal(document.paths['/tasks']?.get?.requestBody, undefined)
    assert.match(JSON.stringify(document.paths['/tasks']?.get?.parameters), /"in":"query"/)
    assert.match(JSON.stringify(document.paths['/nodes/{node}/qemu']?.post?.requestBody), /x-www-form-urlencoded/)
    const upload = document.paths['/nodes/{node}/storage/{storage}/upload']?.post?.requestBody
    assert.deepEqual(Object.keys((upload as { content: object }).content), ['multipart/form-data'])
  })
})
