import assert from 'node:assert/strict'
import { test } from 'node:test'
import { apiClient } from '#rest/client.ts'
import type { NodeEndpoint } from './root.ts'

test('the typed client knows the calls of this node', async () => {
  const asked: string[] = []
  const api = apiClient<NodeEndpoint>(({ method, target }) => {
    asked.push(`${method} ${target}`)
    return Promise.resolve({ status: 200, reason: 'OK', headers: {}, body: '{"data":{"version":"9.2.3"}}' })
  })
  const { version } = await api.call('GET /version', {})
  assert.equal(version, '9.2.3')
  // @ts-expect-error -- no endpoint has that path
  await api.call('GET /no/such/path', {})
  // @ts-expect-error -- a guest's status needs its number
  await assert.rejects(api.call('GET /nodes/{node}/qemu/{vmid}/status/current', { node: 'lab' }))
  assert.equal(asked[0], 'GET /api2/json/version')
})
