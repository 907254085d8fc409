import assert from 'node:assert/strict'
import { mkdir, mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { makeEveryEntry } from '../../../test/fixtures/every-entry.ts'
import { treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import { copyTree } from './copy-tree.ts'
import { machine } from '../exec.ts'
import { removeTree } from './remove-tree.ts'

const host = machine()

test('a tree is copied with all that is said of its files, at any pace, or not at all', async () => {
  const home = await mkdtemp('/var/tmp/hako-copy-')
  try {
    const source = join(home, 'source')
    await makeEveryEntry(source)
    const [fast, slow, none] = await Promise.all(
      ['fast', 'slow', 'none'].map(async (name) => {
        const target = join(home, name)
        await mkdir(target)
        return target
      }),
    )
    assert.ok(fast !== undefined && slow !== undefined && none !== undefined)
    await copyTree(host, { source, target: fast })
    assert.deepEqual(treeManifest(fast), treeManifest(source))
    // What a copy at a pace does not keep.
    await host.run(['find', source, '(', '-type', 's', '-o', '-name', 'null-too', ')', '-delete'])
    await host.run(['touch', '--reference', join(fast, 'folder'), join(source, 'folder')])
    await host.run(['touch', '--reference', fast, source])
    const startedMs = performance.now()
    await copyTree(host, { source, target: slow, bytesPerSecond: 2_000_000 })
    assert.ok(performance.now() - startedMs > 300, 'about a megabyte was copied at once')
    assert.deepEqual(treeManifest(slow), treeManifest(source))
    const stopped = copyTree(host, { source, target: none, bytesPerSecond: 1_000, signal: AbortSignal.timeout(50) })
    await assert.rejects(stopped, (error) => isFault(error, 'aborted') || (error as Error).name === 'TimeoutError')
  } finally {
    await removeTree(host, home)
  }
})
