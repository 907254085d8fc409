import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { LooksHere, looksElsewhere } from './looks.ts'

const home = mkdtempSync(join(tmpdir(), 'hako-looks-'))
after(() => rmSync(home, { recursive: true }))
const file = join(home, 'file')
writeFileSync(file, 'content')
mkdirSync(join(home, 'folder'))
await machine().run(['mkfifo', join(home, 'pipe')])

for (const [name, looks] of Object.entries({ elsewhere: looksElsewhere, here: new LooksHere() })) {
  suite(`looks ${name}`, () => {
    test('see names, kinds, sizes and content', async () => {
      const kinds = (await looks.entries(home)).map((one) => `${one.name} ${one.isFile()} ${one.isDirectory()}`)
      assert.deepEqual(kinds.toSorted(), ['file true false', 'folder false true', 'pipe false false'])
      assert.equal((await looks.facts(file)).size, 7)
      assert.equal((await looks.whole(file, 7)).toString(), 'content')
      await using handle = await open(file)
      const into = Buffer.alloc(9)
      assert.equal(await looks.part(handle, into, 2, 3), 4)
      assert.equal(into.toString('latin1', 2, 6), 'tent')
      assert.equal(await looks.part(handle, into, 0, 7), 0)
    })

    test('read nothing that is too large, and fail as the system does', async () => {
      await assert.rejects(looks.whole(file, 6), (fault) => isFault(fault, 'too-large'))
      const lost = join(home, 'lost')
      for (const look of [looks.whole(lost, 1), looks.facts(lost), looks.entries(lost)]) {
        await assert.rejects(look, { code: 'ENOENT' })
      }
      await assert.rejects(looks.whole(join(home, 'folder'), 2 ** 20), { code: 'EISDIR' })
      await assert.rejects(looks.entries(file), { code: 'ENOTDIR' })
    })
  })
}

test('a pipe where a file should be holds up nobody', async () => {
  assert.equal((await new LooksHere().whole(join(home, 'pipe'), 100)).length, 0)
})

test('whoever looks here again and again lets timers have their turn meanwhile', async () => {
  const looks = new LooksHere()
  let turns = 0
  using _timer = setInterval(() => (turns += 1), 1)
  for (let look = 0; turns < 3; look += 1) {
    assert.ok(look < 1_000_000, `${turns} turns`)
    await looks.facts(file)
  }
})
