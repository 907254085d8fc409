/** Images of a real registry, by the calls clients make. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type ImageRegistry, imageRegistry } from '../fixtures/image-registry.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const closing = new AsyncDisposableStack()
let registry: ImageRegistry
let node: WholeNode

before(async () => {
  registry = closing.use(await imageRegistry())
  node = closing.use(await wholeNode({ caFile: registry.authority.file, fetchNetworks: ['127.0.0.1'] }))
  await registry.push('team/web:1.0', 'hello')
})
after(() => closing.disposeAsync())

test('a client looks for tags and has an image pulled, under the name it wants or one made of it', async () => {
  const at = `/nodes/${node.settings.node}`
  const repository = `${registry.address}/team/web`
  const tags = await node.api('GET', `${at}/query-oci-repo-tags`, { reference: repository })
  assert.deepEqual(tags.data, ['1.0'])
  const pull = async (params: Record<string, unknown>) => {
    const upid = (await node.api('POST', `${at}/storage/local/oci-registry-pull`, params)).data
    assert.match(String(upid), /:ociregistrypull:local:root@pam:$/)
    return node.ended(upid)
  }
  assert.equal(await pull({ reference: `${repository}:1.0` }), 'OK')
  assert.equal(await pull({ reference: `${repository}:1.0`, filename: 'mine' }), 'OK')
  assert.match(
    await pull({ reference: `${repository}:1.0`, filename: 'mine.tar' }),
    /^refusing to override existing file/,
  )
  assert.match(await pull({ reference: `${repository}:2` }), /^the registry does not give .*manifest unknown/)
  const content = await node.api('GET', `${at}/storage/local/content`, { content: 'vztmpl' })
  const volumes = (content.data as { volid: string; format: string }[]).map(({ volid, format }) => `${volid} ${format}`)
  assert.deepEqual(volumes, ['local:vztmpl/mine.tar tar', 'local:vztmpl/web_1.0.tar tar'])
  const wrong = { reference: `${registry.address}/Team/Web:1.0` }
  await assert.rejects(
    node.api('POST', `${at}/storage/local/oci-registry-pull`, wrong),
    /Parameter verification failed/,
  )
  // A text that takes a pattern with many ways through it forever.
  const odd = { reference: `${'a'.repeat(300)}!` }
  await assert.rejects(node.api('GET', `${at}/query-oci-repo-tags`, odd), /Parameter verification failed/)
})
