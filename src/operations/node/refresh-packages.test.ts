/** Lists of packages, fetched by the real apt from a folder. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { machine } from '#host/exec.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { refreshPackages } from './refresh-packages.ts'

const host = machine()
const packageFile = 'Package: hako-sample\nVersion: 1.0\nArchitecture: all\nFilename: ./x.deb\nSize: 1\nSHA256: 00\n'

everyStepFails(
  refreshPackages,
  async () => {
    const own = await mkdtemp('/var/tmp/hako-lists-')
    await chmod(own, 0o755)
    const places = ['etc/apt/preferences.d', 'var/lib/apt/lists/partial', 'var/cache/apt/archives/partial', 'repo']
    for (const place of places) await mkdir(join(own, place), { recursive: true })
    await writeFile(join(own, 'repo/Packages'), packageFile)
    await writeFile(join(own, 'etc/apt/sources.list'), `deb [trusted=yes] file:${own}/repo ./\n`)
    const look = async () => {
      const status = ['-o', `Dir=${own}`, '-o', 'Dir::State::status=/dev/null']
      return (await host.run(['apt-cache', ...status, 'pkgnames'])).stdout
    }
    const deps = { host, packageSources: { root: own } }
    return { params: {}, deps, look, [Symbol.asyncDispose]: () => rm(own, { recursive: true, force: true }) }
  },
  { isFinal: true, withCrashes: false },
)
