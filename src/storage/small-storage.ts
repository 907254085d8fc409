/**
 * A storage service over a store in memory and a fresh folder, for tests here and of those who use it. Real
 * files, real tools; only the configuration is forgotten.
 */
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { machine } from '#host/exec.ts'
import { openMemoryStore } from '#store/memory.ts'
import { StorageService } from './service.ts'

export interface SmallStorage extends AsyncDisposable {
  readonly service: StorageService
  /** Folder for anything; the storage `local` is `storage` inside it. */
  readonly folder: string
  /** Every file below the storage, hidden ones too, with its content. Empty folders do not count. */
  readonly look: () => Promise<Readonly<Record<string, string>>>
}

/**
 * One storage, `local`, that may hold everything, on a node called `lab`.
 * @param below where its folder is made; `/dev/shm` for tests that make hundreds, each with its syncs
 */
export async function smallStorage(below = tmpdir()): Promise<SmallStorage> {
  const folder = await mkdtemp(join(below, 'hako-storage-'))
  await chmod(folder, 0o711)
  const settings = { node: 'lab', stateDir: folder }
  const store = openMemoryStore()
  const service = new StorageService({ settings, store, host: machine(), clock: systemClock, log: silentLog })
  const path = join(folder, 'storage')
  await service.create({ storage: 'local', type: 'dir', path, content: 'images,iso,vztmpl,snippets,import,backup' })
  return {
    service,
    folder,
    look: () => filesBelow(path),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

/** Every file below a folder, hidden ones too, with its content. */
export async function filesBelow(path: string): Promise<Record<string, string>> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name))
  const contents = await Promise.all(files.map((file) => readFile(file, 'latin1')))
  return Object.fromEntries(
    files.toSorted().map((file) => [file.slice(path.length + 1), contents[files.indexOf(file)] ?? '']),
  )
}
