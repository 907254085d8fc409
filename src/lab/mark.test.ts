import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { settingsFrom } from '#settings.ts'
import { markAsLab, requireLab } from './mark.ts'

test('a lab may be taken down, and a node that is no lab may not', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-mark-'))
  try {
    const settings = settingsFrom({ HAKO_STATE_DIR: stateDir })
    await requireLab(settings) // Nothing there: nothing to protect.
    await writeFile(join(stateDir, 'store.sqlite'), '')
    await assert.rejects(requireLab(settings), /holds a node that is no lab/)
    await assert.rejects(markAsLab(settings), /holds a node that is no lab/)
    await rm(join(stateDir, 'store.sqlite'))
    await markAsLab(settings)
    await writeFile(join(stateDir, 'store.sqlite'), '')
    await requireLab(settings)
  } finally {
    await rm(stateDir, { recursive: true })
  }
})
