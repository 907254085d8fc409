/**
 * Sees to it that the API is served with the certificate it should be served with: the self-signed one is made anew
 * before it ends, one that was ordered is renewed, and one that a task brought is taken up.
 *
 * Takes no input: what is wanted is in the files, and what is served is known. A change in the store only ends the wait.
 */
import { isFault } from '#base/fault.ts'
import { changesBelow } from '#cluster/certificates.ts'
import { isRenewalDue, renewCertificate } from '#operations/acme/certificate.ts'
import type { NodeServices } from '#services.ts'

type Deps = Pick<NodeServices, 'certificates' | 'store' | 'clock' | 'log' | 'tasks'>

const everyMs = 60 * 60_000
/** A renewal that failed is tried again after so many rounds: a server that is away need not be asked by the hour. */
const roundsBetween = 12

export function keepCertificate(deps: Deps, signal: AbortSignal): void {
  const { certificates, clock, log } = deps
  const apply = async () => {
    try {
      await certificates.apply()
    } catch (error) {
      log.error('the certificate could not be renewed', { error })
    }
  }
  const renew = async () => {
    if (!(await isRenewalDue(deps))) return
    const upid = await deps.tasks.start({ operation: renewCertificate.name, params: {}, user: 'root@pam' })
    log.info('the certificate is being renewed', { upid })
  }
  const rounds = async () => {
    for (let round = 0; ; round += 1) {
      if (round % roundsBetween === 0) {
        await renew().catch((error: unknown) => log.error('the certificate could not be renewed', { error }))
      }
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
