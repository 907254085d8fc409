/**
 * Certificates an ACME server signs: ordered, renewed, revoked. What is served changes in one act, last; whatever fails
 * before leaves it as it was.
 */
import { X509Certificate } from 'node:crypto'
import type { AcmePlugins } from '#cluster/acme/plugins.ts'
import { settingsOf } from '#cluster/acme/plugins.ts'
import { type WantedName, wantedOf } from '#cluster/acme/domains.ts'
import type { Proof } from '#cluster/acme/client.ts'
import { byRecord, byServer } from '#cluster/acme/proofs.ts'
import type { Certificates } from '#cluster/certificates.ts'
import type { NodeConfigs } from '#cluster/node-config.ts'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import type { Host } from '#host/host.ts'
import type { Settings } from '#settings.ts'
import { operation } from '#tasks/operation.ts'
import { type AccountDeps, open } from './account.ts'

export interface CertificateDeps extends AccountDeps {
  readonly acmePlugins: AcmePlugins
  readonly certificates: Certificates
  readonly nodeConfigs: NodeConfigs
  readonly host: Host
  readonly clock: Clock
  readonly settings: Settings
}

export interface OrderCertificate {
  /** Also when there is a custom one, or one that is good for long. */
  readonly force?: boolean | undefined
}

const renewDays = 30
const dayMs = 86_400_000
const locks = { locks: () => ['certificate'] }

const order = (name: string, requireDue: (deps: CertificateDeps, force: boolean) => Promise<void>) =>
  operation<OrderCertificate, CertificateDeps>(name, locks)
    .step('check', {
      async do({ params, deps, task }) {
        await requireDue(deps, params.force === true)
        const wanted = wantedOf((await deps.nodeConfigs.of(task.node)).options)
        await deps.acmeAccounts.get(wanted.account)
        for (const one of wanted.names) await proofFor(deps, one, task.node)
        return { account: wanted.account, names: wanted.names.map(({ name: domain }) => domain) }
      },
    })
    // The key never leaves this step: what a step returns is written down.
    .step('certificate', {
      async do({ deps, task, log }) {
        const { account, names } = wantedOf((await deps.nodeConfigs.of(task.node)).options)
        const proofs = new Map<string, Proof>()
        for (const one of names) proofs.set(one.name, await proofFor(deps, one, task.node))
        const client = await open(deps, account)
        const made = await client.order({ names: names.map((one) => one.name), proofOf: proofOf(proofs), log })
        const { fingerprint } = await deps.certificates.bring({ ...made, force: true })
        await deps.certificates.rememberOrder(account, fingerprint)
        log(`the API is served with ${fingerprint} from now on`)
      },
    })

export const orderCertificate = order('acmenewcert', async ({ certificates }, force) => {
  if (force || (await certificates.custom()) === undefined) return
  throw new Fault('conflict', 'a custom certificate is there already', { remedy: 'Set force to replace it.' })
})

export const renewCertificate = order('acmerenew', async ({ certificates, clock }, force) => {
  const custom = await certificates.custom()
  if (!custom) throw new Fault('missing', 'there is no custom certificate to renew', { remedy: 'Order one.' })
  const left = timeLeft(custom.certificate, clock)
  if (force || left < renewDays * dayMs) return
  throw new Fault('conflict', `the certificate is good for ${Math.floor(left / dayMs)} more days`, {
    remedy: 'Set force to renew it all the same.',
  })
})

/** Of a certificate that was ordered here; one that was brought is its owner's to renew. */
export async function isRenewalDue({
  certificates,
  clock,
}: Pick<CertificateDeps, 'certificates' | 'clock'>): Promise<boolean> {
  const custom = await certificates.custom()
  if (!custom || (await certificates.orderedBy()) === undefined) return false
  return timeLeft(custom.certificate, clock) < renewDays * dayMs
}

function timeLeft(certificate: string, clock: Clock): number {
  return new X509Certificate(certificate).validToDate.getTime() - clock.now()
}

// No undo: what was revoked stays revoked. It is revoked first, so that no certificate is forgotten that is still good.
export const revokeCertificate = operation<Record<string, never>, CertificateDeps>('acmerevoke', locks).step(
  'certificate',
  {
    async do({ deps, log }) {
      const account = await deps.certificates.orderedBy()
      const custom = await deps.certificates.custom()
      if (account === undefined || !custom) {
        throw new Fault('missing', 'the API is not served with a certificate that was ordered here')
      }
      await (await open(deps, account)).revoke(custom.certificate)
      log('the certificate is revoked')
      await deps.certificates.remove()
    },
  },
)

function proofOf(proofs: ReadonlyMap<string, Proof>): (name: string) => Proof {
  return (name) => {
    const proof = proofs.get(name)
    if (!proof) throw new Fault('failed', `the ACME server asks for '${name}', which nobody ordered`)
    return proof
  }
}

/** @throws Fault `missing`, `conflict` when the plugin is not for this node */
async function proofFor(deps: CertificateDeps, { name, plugin: id, alias }: WantedName, node: string): Promise<Proof> {
  const plugin = await deps.acmePlugins.get(id)
  const isElsewhere = plugin.nodes !== undefined && !splitList(plugin.nodes).includes(node)
  if (plugin.disable === true || isElsewhere) {
    throw new Fault('conflict', `ACME plugin '${id}', which is to prove '${name}', is disabled or not for this node`)
  }
  if (plugin.type === 'standalone') return byServer(deps.settings.acmePort ?? 80)
  const place = { ...settingsOf(plugin.data ?? ''), delaySeconds: plugin['validation-delay'] ?? 30 }
  return byRecord(deps.host, deps.clock, place, (domain) => `_acme-challenge.${alias ?? domain}`)
}
