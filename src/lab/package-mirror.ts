/** Where this machine takes its packages from: what is built from packages comes from there too. */
import { Fault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'

const updateMs = 300_000

export interface PackageMirror {
  readonly mirror: string
  /** `bookworm`: the release itself, not what is added to it. */
  readonly suite: string
}

/** @param packageName one that every release has @throws Fault `missing` */
export async function packageMirror(host: Host, packageName: string): Promise<PackageMirror> {
  const policy = async () => (await host.run(['apt-cache', 'policy', packageName])).stdout
  const found = mirrorIn(await policy())
  if (found) return found
  // A fresh machine may have empty package lists.
  await host.run(['apt-get', '--quiet', 'update'], { timeoutMs: updateMs })
  const mirror = mirrorIn(await policy())
  if (mirror) return mirror
  throw new Fault('missing', `the package '${packageName}' is in none of this machine's package sources`)
}

export function mirrorIn(policy: string): PackageMirror | undefined {
  const [, mirror, suite] = /^\s+\d+ (https?:\S+) (\w+)\/main \S+ Packages$/m.exec(policy) ?? []
  return mirror === undefined || suite === undefined ? undefined : { mirror, suite }
}
