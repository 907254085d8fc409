import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { type KeptTrees, planContainer, type RestoreWish } from './container-plan.ts'

const kept: KeptTrees = {
  options: {
    hostname: 'web',
    unprivileged: '0',
    features: 'nesting=1,keyctl=1',
    hookscript: 'local:snippets/x',
    parent: 'before',
    unused0: 'local:100/subvol-100-disk-9.subvol',
    rootfs: 'local:100/vm-100-disk-0.raw,size=2G',
    mp0: 'fast:100/subvol-100-disk-1.subvol,mp=/srv,backup=1',
    mp1: 'fast:100/subvol-100-disk-2.subvol,mp=/cache',
    mp2: '/data,mp=/data',
  },
  trees: new Map([
    ['rootfs', GiB],
    ['mp0', 3 * GiB],
  ]),
}

function planned(wish: Partial<RestoreWish> = {}) {
  const said: string[] = []
  const say = (line: string) => void said.push(line)
  return { ...planContainer(kept, { isRoot: true, log: say, warn: say, ...wish }), said }
}

test('a container gets new volumes like those it had, where they were or where it is told', () => {
  const { options, wishes, trees, said } = planned()
  assert.deepEqual(options, {
    hostname: 'web',
    unprivileged: '0',
    features: 'nesting=1,keyctl=1',
    hookscript: 'local:snippets/x',
    mp2: '/data,mp=/data',
  })
  assert.deepEqual(wishes, { rootfs: 'local:2', mp0: 'fast:0,backup=1,mp=/srv' })
  assert.deepEqual(trees, ['rootfs', 'mp0'])
  assert.match(said.join('\n'), /^mp1 is left out: the backup does not hold it\. .*'\/cache'/)
  assert.deepEqual(planned({ storage: 'big' }).wishes, { rootfs: 'big:2', mp0: 'big:0,backup=1,mp=/srv' })
})

test('nothing that root alone may set comes to somebody else’s container', () => {
  const { options, said } = planned({ isRoot: false })
  assert.deepEqual(options, { hostname: 'web' })
  const left = said.map((line) => /^(\w+) is left out/.exec(line)?.[1])
  assert.deepEqual(new Set(left), new Set(['unprivileged', 'features', 'hookscript', 'mp1', 'mp2']))
})

test('mounts that are given take the place of those it had; others are new and empty', () => {
  const overrides = { rootfs: 'big:8', mp5: 'big:1,mp=/new', hostname: 'other', unprivileged: '1' }
  const { options, wishes, trees } = planned({ overrides })
  assert.deepEqual([options.hostname, options.unprivileged], ['other', '1'])
  assert.deepEqual([wishes.rootfs, wishes.mp5], ['big:8', 'big:1,mp=/new'])
  assert.deepEqual(trees, ['rootfs', 'mp0'])
  const folder = planned({ overrides: { mp0: '/elsewhere,mp=/srv' } })
  assert.deepEqual([folder.options.mp0, folder.trees], ['/elsewhere,mp=/srv', ['rootfs']])
  assert.match(folder.said.join('\n'), /the content of mp0 stays in the backup/)
})

test('a volume that is too small, or one that is there already, is refused by name', () => {
  for (const [overrides, said] of [
    [{ rootfs: 'big:0.5' }, /512M is too small: the backup holds 1\.0 GiB for it/],
    [{ mp0: 'local:100/subvol-100-disk-1.subvol,mp=/srv' }, /gets volumes of its own/],
  ] as const) {
    const [name = ''] = Object.keys(overrides)
    assert.throws(
      () => planned({ overrides }),
      (fault) => isFault(fault, 'invalid') && said.test(fault.fields?.[name] ?? ''),
      name,
    )
  }
  assert.throws(() => planContainer({ ...kept, trees: new Map() }, { isRoot: true, log: () => {}, warn: () => {} }))
})
