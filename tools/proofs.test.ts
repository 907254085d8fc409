import assert from 'node:assert/strict'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { blocksIn, readProofs, unproven } from './proofs.ts'

const manuscript = join(import.meta.dirname, '../manuscript')

test('every command in the handbook was run as it stands there, and its evidence is what a node signed', async () => {
  const blocks = blocksIn(manuscript)
  assert.ok(blocks.length > 0)
  assert.deepEqual(unproven(blocks, await readProofs(manuscript)), [])
})

test('a command that was changed, or that nobody ran, is found', async () => {
  const proofs = await readProofs(manuscript)
  const [block] = blocksIn(manuscript)
  assert.ok(block)
  assert.match(
    unproven([{ ...block, text: `${block.text} --force` }], proofs)[0] ?? '',
    /what plans\/\S+ ran was: hako /,
  )
  assert.match(unproven([{ ...block, step: 'plans/x.md#y' }], proofs)[0] ?? '', /no evidence of plans\/x.md#y/)
  assert.match(unproven([{ ...block, step: undefined }], proofs)[0] ?? '', /names no step/)
})

test('evidence that was tampered with proves nothing', async () => {
  const copy = await mkdtemp(join(tmpdir(), 'hako-proofs-'))
  try {
    await cp(join(manuscript, 'runs'), join(copy, 'runs'), { recursive: true })
    const [name] = (await readdir(join(copy, 'runs'))).filter((one) => one !== 'evidence.pub')
    const record = join(copy, 'runs', name ?? '', 'record.json')
    await writeFile(record, (await readFile(record, 'utf8')).replace('"proven"', '"proveN"'))
    await assert.rejects(readProofs(copy), /record\.json/)
  } finally {
    await rm(copy, { recursive: true })
  }
})
