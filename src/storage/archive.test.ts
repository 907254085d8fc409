import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { membersOf, memberText } from './archive.ts'

const run = promisify(execFile)

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'hako-archive-'))
  t.after(() => rm(path, { recursive: true }))
  return path
}

/** What `tar` made of these files, in one of its formats. */
async function archive(t: TestContext, files: Readonly<Record<string, string>>, format: string): Promise<string> {
  const at = await folder(t)
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(at, 'in', name, '..'), { recursive: true })
    await writeFile(join(at, 'in', name), text)
  }
  const path = join(at, 'x.ova')
  await run('tar', [`--format=${format}`, '-C', join(at, 'in'), '-cf', path, ...Object.keys(files)])
  return path
}

suite('an archive', () => {
  const long = `${'a rather long folder name/'.repeat(5)}disk.vmdk`
  const files = { 'machine.ovf': '<Envelope/>', [long]: 'x'.repeat(1500), 'empty.raw': '' }

  for (const format of ['ustar', 'gnu', 'pax']) {
    test(`in tar's format ${format} has the members tar put there, where their bytes are`, async (t) => {
      const path = await archive(t, files, format)
      const members = await membersOf(path)
      assert.deepEqual(
        members.map(({ name, sizeBytes }) => [name, sizeBytes]),
        Object.entries(files).map(([name, text]) => [name, text.length]),
      )
      const whole = await readFile(path, 'latin1')
      for (const { name, offset, sizeBytes } of members) {
        assert.equal(whole.slice(offset, offset + sizeBytes), files[name])
      }
      const [ovf, disk] = members
      assert.ok(ovf && disk)
      assert.equal(await memberText(path, ovf, 100), '<Envelope/>')
      await assert.rejects(memberText(path, disk, 100), /is larger than 100 bytes/)
    })
  }

  test('has no links, folders or devices among its members', async (t) => {
    const at = await folder(t)
    await symlink('/etc/shadow', join(at, 'link.vmdk'))
    await mkdir(join(at, 'folder.vmdk'))
    await run('mkfifo', [join(at, 'pipe.vmdk')])
    await writeFile(join(at, 'disk.vmdk'), 'x')
    await run('tar', ['-C', at, '-cf', join(at, 'x.ova'), 'link.vmdk', 'folder.vmdk', 'pipe.vmdk', 'disk.vmdk'])
    assert.deepEqual(
      (await membersOf(join(at, 'x.ova'))).map(({ name }) => name),
      ['disk.vmdk'],
    )
  })

  test('that is cut off, or none, is called damaged', async (t) => {
    const path = await archive(t, files, 'gnu')
    await truncate(path, 2048)
    await assert.rejects(membersOf(path), (fault) => isFault(fault, 'damaged'))
    await writeFile(path, 'this is no archive'.repeat(100))
    await assert.rejects(membersOf(path), /it is no tar archive, or damaged/)
    await assert.rejects(membersOf('/nowhere/x.ova'), (fault) => isFault(fault, 'missing'))
  })

  test('of any bytes ends in members within it or in a fault', async (t) => {
    const path = await archive(t, files, 'pax')
    const sound = await readFile(path)
    const damage = fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(damage, fc.boolean(), async (places, mendsSums) => {
        const bytes = Buffer.from(sound)
        for (const [at, value] of places) bytes[at] = value
        if (mendsSums) for (let at = 0; at + 512 <= bytes.length; at += 512) mendSum(bytes.subarray(at, at + 512))
        await writeFile(path, bytes)
        const members = await membersOf(path).catch((fault: unknown) => {
          assert.ok(isFault(fault), String(fault))
          return []
        })
        for (const { offset, sizeBytes } of members) assert.ok(offset >= 512 && offset + sizeBytes <= bytes.length)
      }),
      { numRuns: 300 },
    )
  })
})

/** A forger can sum up, too. */
function mendSum(header: Buffer): void {
  if (header.toString('latin1', 257, 262) !== 'ustar') return
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
}
