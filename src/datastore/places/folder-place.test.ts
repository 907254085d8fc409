import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { placeConformance } from './conformance.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-places-'))
after(() => rm(home, { recursive: true }))

const folder = () => mkdtemp(join(home, 'datastore-'))
placeConformance('a folder', async () => ({ folder: await folder() }))
placeConformance('a folder of a process alone', async () => ({ folder: await folder(), isAlone: true }))
