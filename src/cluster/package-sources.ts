/**
 * Repositories of packages a node may switch on and off, and the ones of its distribution it may add.
 *
 * The files are the machine's: a node that shares its machine looks and does not touch. A standard repository is one of
 * Debian's own, for the release that is installed; it is added in a file of its own, and nobody else's file grows.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { Fault, invalid } from '#base/fault.ts'
import { makeDirectory, readIfPresent, writeFileAtomic } from '#host/files.ts'
import { type Repository, type RepositoryFile, repositoryFiles, withEnabled } from '#host/system/package-sources.ts'

export interface StandardRepository {
  readonly handle: string
  readonly name: string
  /** Absent: not configured. */
  readonly isEnabled?: boolean
}

interface Standard {
  readonly name: string
  readonly uri: string
  readonly suffix: string
}

const archive = 'http://deb.debian.org/debian'
const standards: Readonly<Record<string, Standard>> = {
  debian: { name: 'Debian', uri: archive, suffix: '' },
  'debian-updates': { name: 'Debian, corrections between point releases', uri: archive, suffix: '-updates' },
  'debian-security': {
    name: 'Debian, security fixes',
    uri: 'http://deb.debian.org/debian-security',
    suffix: '-security',
  },
  'debian-backports': { name: 'Debian, newer versions for this release', uri: archive, suffix: '-backports' },
}
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'

export class PackageSources {
  readonly #root: string
  readonly #isOwn: boolean

  /** @param machineRoot stands for `/`; absent where the machine is shared */
  constructor({ machineRoot }: { readonly machineRoot?: string }) {
    this.#root = machineRoot ?? '/'
    this.#isOwn = machineRoot !== undefined
  }

  get root(): string {
    return this.#root
  }

  files(): Promise<RepositoryFile[]> {
    return repositoryFiles(this.#root)
  }

  async standard(): Promise<StandardRepository[]> {
    const [files, release] = [await this.files(), await this.#release()]
    if (release === undefined) return []
    return Object.entries(standards).map(([handle, one]) => {
      const found = findStandard(files, one, release)
      return { handle, name: one.name, ...(found === undefined ? {} : { isEnabled: found.repository.isEnabled }) }
    })
  }

  /** @throws Fault `invalid` for a file or place that is none; `conflict` when the digest is not that of the files now */
  async setEnabled(path: string, index: number, isEnabled: boolean, digest?: string): Promise<void> {
    this.requireOwn()
    const files = await this.#filesAsSeen(digest)
    const file = files.find((one) => one.path === path)
    if (!file) throw invalid({ path: `'${path}' is no file of package sources` })
    if (file.repositories[index] === undefined) {
      throw invalid({ index: `'${path}' has ${file.repositories.length} repositories, counted from 0` })
    }
    await this.#write(path, withEnabled(file, index, isEnabled))
  }

  /** Switched on where it is there. @throws Fault `invalid` for an unknown handle */
  async addStandard(handle: string, digest?: string): Promise<void> {
    this.requireOwn()
    const files = await this.#filesAsSeen(digest)
    const [wanted, release] = [standards[handle], await this.#release()]
    if (!wanted || release === undefined) {
      throw invalid({ handle: `there is no standard repository '${handle}': ${Object.keys(standards).join(', ')}` })
    }
    const found = findStandard(files, wanted, release)
    if (found) {
      await this.#write(found.file.path, withEnabled(found.file, found.index, true))
      return
    }
    const fields = { Types: 'deb', URIs: wanted.uri, Suites: release + wanted.suffix, Components: 'main' }
    const lines = Object.entries({ ...fields, 'Signed-By': keyring }).map(([key, value]) => `${key}: ${value}`)
    await this.#write(`/etc/apt/sources.list.d/hakobune-${handle}.sources`, `${lines.join('\n')}\n`)
  }

  /** @throws Fault `conflict` on a machine that is shared */
  requireOwn(): void {
    if (this.#isOwn) return
    throw new Fault('conflict', 'the sources of packages belong to the machine, which this node shares with others', {
      remedy: 'Change them on the machine itself.',
    })
  }

  async #filesAsSeen(digest: string | undefined): Promise<RepositoryFile[]> {
    const files = await this.files()
    if (digest === undefined || digest === digestOf(files)) return files
    throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
  }

  async #write(path: string, text: string): Promise<void> {
    const target = join(this.#root, path)
    await makeDirectory(join(target, '..'), 0o755)
    await writeFileAtomic(target, text, 0o644)
  }

  /** `bookworm`; nothing on what is not Debian. */
  async #release(): Promise<string | undefined> {
    const text = (await readIfPresent(join(this.#root, 'etc/os-release'))) ?? ''
    const field = (name: string) => new RegExp(`^${name}="?([a-z]+)"?$`, 'm').exec(text)?.[1]
    return field('ID') === 'debian' ? field('VERSION_CODENAME') : undefined
  }
}

/** SHA-256 of all the files, in hexadecimal. */
export function digestOf(files: readonly RepositoryFile[]): string {
  const digest = createHash('sha256')
  for (const file of files) digest.update(file.path).update(file.digest)
  return digest.digest('hex')
}

function findStandard(files: readonly RepositoryFile[], { uri, suffix }: Standard, release: string) {
  const isIt = ({ types, uris, suites, components }: Repository) =>
    types.includes('deb') &&
    uris.some((one) => pathOf(one) === pathOf(uri)) &&
    suites.some((suite) => suite.replace(/\/updates$/, '-security') === release + suffix) &&
    components.includes('main')
  for (const file of files) {
    const index = file.repositories.findIndex(isIt)
    const repository = file.repositories[index]
    if (repository) return { file, index, repository }
  }
  return undefined
}

/** A mirror has the same path on another host. */
function pathOf(uri: string): string {
  return URL.canParse(uri) ? new URL(uri).pathname.replace(/\/+$/, '') : uri
}
