import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { placeConformance } from './conformance.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-places-'))
after(() => rm(home, { recursive: true }))

placeConformance('a folder', async () => ({ folder: await mkdtemp(join(home, 'datastore-')) }))
