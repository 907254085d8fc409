/**
 * Sees to it that the API is served with the certificate it should be served with: the self-signed one is made anew
 * before it ends, and one that a task brought is taken up.
 *
 * Takes no input: what is wanted is in the files, and what is served is known. A change in the store only ends the wait.
 */
import { isFault } from '#base/fault.ts'
import { changesBelow } from '#cluster/certificates.ts'
import type { Services } from '#services.ts'

type Deps = Pick<Services, 'certificates' | 'store' | 'clock' | 'log'>

const everyMs = 60 * 60_000

export function keepCertificate(deps: Deps, signal: AbortSignal): void {
  const { certificates, clock, log } = deps
  const apply = async () => {
    try {
      await certificates.apply()
    } catch (error) {
      log.error('the certificate could not be renewed', { error })
    }
  }
  const rounds = async () => {
    for (;;) {
      await clock.sleep(everyMs, signal)
      await apply()
    }
  }
  const changes = async () => {
    for await (const _ of deps.store.watch(changesBelow, await deps.store.revision(), signal)) await apply()
  }
  for (const kept of [rounds(), changes()]) {
    kept.catch((error: unknown) => {
      if (!isFault(error, 'aborted')) log.error('nobody looks after the certificate any more', { error })
    })
  }
}
