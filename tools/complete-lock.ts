/**
 * Completes the locks after a change of dependencies: `node tools/complete-lock.ts`.
 *
 * Tools with one native package per platform name all of them as optional. A registry mirror that holds
 * only some platforms makes npm leave the others out of the lock, and npm 11 then refuses `npm ci`. Their
 * entries need no more than version, system and processor: npm skips what does not fit the machine.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

interface LockedPackage {
  readonly version?: string
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly dev?: boolean
  readonly [key: string]: unknown
}
export interface Lock {
  readonly packages: Readonly<Record<string, LockedPackage>>
}

/** The same lock with an entry for every optional package that has none. */
export function completed(lock: Lock): Lock {
  const packages: Record<string, LockedPackage> = { ...lock.packages }
  for (const { optionalDependencies = {}, dev } of Object.values(lock.packages)) {
    for (const [name, version] of Object.entries(optionalDependencies)) {
      packages[`node_modules/${name}`] ??= { version, ...(dev ? { dev } : {}), optional: true, ...platformOf(name) }
    }
  }
  const sorted = Object.entries(packages).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return { ...lock, packages: Object.fromEntries(sorted) }
}

/** `@oxlint/binding-linux-x64-musl` runs on linux, x64, with musl. */
function platformOf(name: string): { os: string[]; cpu: string[]; libc?: string[] } {
  const words = (name.split('/').at(-1) ?? '').split('-')
  const at = words.findIndex((word) =>
    /^(aix|android|darwin|freebsd|linux|netbsd|openbsd|openharmony|sunos|win32)$/.test(word),
  )
  const [os = '', cpu = '', abi] = words.slice(at)
  return { os: [os], cpu: [cpu], ...(abi === 'musl' ? { libc: ['musl'] } : {}) }
}

/** Of the product, and of what makes its handbook. */
export const locks = ['package-lock.json', 'manuscript/package-lock.json'].map((path) =>
  join(import.meta.dirname, '..', path),
)

if (import.meta.main) {
  for (const path of locks) {
    writeFileSync(path, `${JSON.stringify(completed(JSON.parse(readFileSync(path, 'utf8')) as Lock), null, 2)}\n`)
  }
}
