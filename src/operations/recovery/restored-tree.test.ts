/** What was restored is looked at beside what was backed up: a tree that is not the same is named, by its first entry. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync } from 'node:fs'
import { chmod, lutimes, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { restoreTree } from '#datastore/tree/restore.ts'
import { treeSource } from '#datastore/tree/source.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import type { IdMap } from '#host/lxc/id-map.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { compareTree } from './restored-tree.ts'

const host = machine()
const id = { namespace: '', type: 'ct', id: '100', time: 1_795_000_000 } as const
const shifted: IdMap = (['uid', 'gid'] as const).map((kind) => ({ kind, inside: 0, outside: 100_000, count: 65_536 }))
const home = mkdtempSync(join(tmpdir(), 'hako-restored-'))
after(() => removeTree(host, home))

test('a restored tree is as it was backed up, or its first difference is named', async () => {
  await using temporary = await temporaryDatastore()
  const datastore = await temporary.reopen()
  const from = join(home, 'from')
  mkdirSync(join(from, 'folder'), { recursive: true })
  for (const name of ['plain', 'folder/empty', 'zz']) await writeFile(join(from, name), name === 'zz' ? 'last' : '')
  const path = (name: string) => join(from, name)
  await host.run(['ln', path('plain'), path('folder/plain-too')])
  await host.run(['mkfifo', path('pipe')])
  await host.run(['mknod', path('null'), 'c', '1', '3'])
  await host.run(['ln', path('null'), path('null-too')])
  await host.run(['setfattr', '-n', 'user.note', '-v', 'kept', path('plain')])
  await host.run(['chown', '33:1000', path('folder')])
  await symlink('plain', join(from, 'a-link'))
  {
    await using writer = await datastore.begin(id)
    await writer.addTree('rootfs', treeSource({ root: from }))
    await writer.commit()
  }
  await using reader = await datastore.open(id)
  const tree = reader.tree('rootfs')
  const digests: string[] = []
  for (const idMap of [undefined, shifted]) {
    const target = join(home, idMap ? 'shifted' : 'plain')
    mkdirSync(target)
    const { attributesLeftOut } = await restoreTree(reader, 'rootfs', { target, idMap })
    digests.push(await compareTree(tree, { target, idMap, hasAttributes: attributesLeftOut === 0 }))
    assert.match(digests.at(-1) ?? '', /^[0-9a-f]{64}$/)
  }
  // Devices are in the one and not in the other.
  assert.notEqual(digests[0], digests[1])

  const target = join(home, 'plain')
  const differs = async (how: RegExp) => {
    // The folder itself was changed with each of these.
    await host.run(['touch', '-r', from, target])
    await assert.rejects(
      compareTree(tree, { target, idMap: undefined, hasAttributes: true }),
      (fault) => isFault(fault, 'unproven') && how.test(fault.message),
    )
  }
  await rm(join(target, 'folder/empty'))
  await host.run(['touch', '-r', join(from, 'folder'), join(target, 'folder')])
  await differs(/^rootfs: '\/folder\/empty' is not as it was backed up: '\/folder\/plain-too' is there instead$/)
  await writeFile(join(target, 'folder/empty'), '')
  await differs(/'\/folder' is not as it was backed up: its time is \d/)
  await host.run(['touch', '-r', join(from, 'folder'), join(target, 'folder')])
  await differs(/'\/folder\/empty' is not as it was backed up: its time is \d/)
  await host.run(['touch', '-r', join(from, 'folder/empty'), join(target, 'folder/empty')])
  await compareTree(tree, { target, idMap: undefined, hasAttributes: true })

  await chmod(join(target, 'zz'), 0o4755)
  await differs(/^rootfs: '\/zz' is not as it was backed up: its mode is 4755, was 644$/)
  await chmod(join(target, 'zz'), 0o644)
  await host.run(['setfattr', '-n', 'user.new', '-v', 'x', join(target, 'zz')])
  await differs(/'\/zz' is not as it was backed up: its attributes is user\.new=78, was $/)
  await host.run(['setfattr', '-x', 'user.new', join(target, 'zz')])
  await lutimes(join(target, 'a-link'), 1, 1)
  await differs(/'\/a-link' is not as it was backed up: its time is 1\.0, was /)
})

test('what nobody backed up is named, too', async () => {
  await using temporary = await temporaryDatastore()
  const datastore = await temporary.reopen()
  const [from, target] = [join(home, 'small'), join(home, 'more')]
  for (const folder of [from, target]) mkdirSync(folder)
  {
    await using writer = await datastore.begin(id)
    await writer.addTree('rootfs', treeSource({ root: from }))
    await writer.commit()
  }
  await using reader = await datastore.open(id)
  await restoreTree(reader, 'rootfs', { target })
  await writeFile(join(target, 'more'), '')
  await host.run(['touch', '-r', from, target])
  const place = { target, idMap: undefined, hasAttributes: true }
  await assert.rejects(compareTree(reader.tree('rootfs'), place), /'\/more' is not as .*: it was not backed up$/)
  await rm(target, { recursive: true })
  mkdirSync(target)
  await host.run(['touch', '-r', from, target])
  await compareTree(reader.tree('rootfs'), place)
})
