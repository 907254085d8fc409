/**
 * Which certificate the API is served with: one that was brought or ordered, else the node's own self-signed one.
 *
 * Each is kept so that key and certificate can only change together: the brought one is one file, and the node's own is
 * made anew when its two files do not fit. Files are readable by root alone. A key leaves this folder only
 * through the pipe to the front. A task cannot reach the front; it changes the files and says so in the store, where
 * the daemon's loop hears of it.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { Fault, invalid } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { makeDirectory, readIfPresent, syncDirectory, writeFileAtomic } from '#host/files.ts'
import type { Settings } from '#settings.ts'
import type { Store } from '#store/store.ts'
import { ensureCertificate, fingerprintOf, type ServerCertificate } from './self-signed.ts'
import { checkUploaded } from './uploaded-certificate.ts'

export interface CertificatesNeeds {
  readonly settings: Pick<Settings, 'stateDir' | 'node'>
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
}

export interface CertificateUpload {
  /** PEM: the certificate, then those that vouch for it. */
  readonly certificates: string
  /** PEM. Without it the key of the certificate that is replaced is used again. */
  readonly key?: string | undefined
  /** Replace one that was brought before. */
  readonly force?: boolean | undefined
}

/** Names as clients know them. */
export const certificateFiles = { own: 'pve-ssl.pem', custom: 'pveproxy-ssl.pem' } as const

const bundle = 'custom.pem'

export class Certificates {
  readonly #needs: CertificatesNeeds
  readonly #directory: string
  #serve: (served: ServerCertificate) => Promise<void> = async () => {}
  /** The chain connections get: two chains may begin with the same certificate. */
  #served = ''

  constructor(needs: CertificatesNeeds) {
    this.#needs = needs
    this.#directory = join(needs.settings.stateDir, 'keys')
  }

  /** The self-signed one; a new one, with a new key, when it is about to end. */
  own(): Promise<ServerCertificate> {
    const { settings, clock, random } = this.#needs
    return ensureCertificate({ directory: this.#directory, node: settings.node, clock, random })
  }

  /** The one that was brought, if any. */
  async custom(): Promise<ServerCertificate | undefined> {
    const text = await readIfPresent(join(this.#directory, bundle))
    if (text === undefined) return undefined
    const at = text.search(/-----BEGIN [A-Z ]*PRIVATE KEY-----/)
    const certificate = text.slice(0, at)
    return { certificate, key: text.slice(at), fingerprint: fingerprintOf(certificate) }
  }

  /** What clients get to see. */
  async wanted(): Promise<ServerCertificate> {
    return (await this.custom()) ?? (await this.own())
  }

  /** Served from now on, without a connection being cut. @throws Fault `invalid`; `conflict` when one is there and force is not given */
  async bring({ certificates, key, force = false }: CertificateUpload): Promise<ServerCertificate> {
    const before = await this.custom()
    const keyText = key ?? before?.key
    if (keyText === undefined) {
      throw invalid({ key: 'property is missing, and there is no certificate whose key could be used again' })
    }
    if (before !== undefined && !force) {
      throw new Fault('conflict', 'a custom certificate is there already', { remedy: 'Set force to replace it.' })
    }
    await this.#put(checkUploaded(certificates, keyText, this.#needs.clock))
    return this.apply()
  }

  /** From now on the self-signed one is served. Harmless when it is already. */
  async remove(): Promise<void> {
    await rm(join(this.#directory, bundle), { force: true })
    await makeDirectory(this.#directory, 0o700)
    await syncDirectory(this.#directory)
    await this.#tell('own')
    await this.apply()
  }

  /** Which account the certificate was ordered with that is there now, if it was. */
  async orderedBy(): Promise<string | undefined> {
    const found = (await this.#needs.store.get<{ account: string; fingerprint: string }>(this.#orderKey()))?.value
    const custom = await this.custom()
    return found && found.fingerprint === custom?.fingerprint ? found.account : undefined
  }

  async rememberOrder(account: string, fingerprint: string): Promise<void> {
    await this.#needs.store.transact([], [{ put: this.#orderKey(), value: { account, fingerprint } }])
  }

  /** Told what serves connections; whatever is wanted already is served at once. */
  async serveWith(serve: (served: ServerCertificate) => Promise<void>, served: ServerCertificate): Promise<void> {
    this.#serve = serve
    this.#served = served.certificate
    await this.apply()
  }

  /** Sees to it that what is wanted is served. */
  async apply(): Promise<ServerCertificate> {
    const wanted = await this.wanted()
    if (wanted.certificate !== this.#served) {
      await this.#serve(wanted)
      this.#served = wanted.certificate
    }
    return wanted
  }

  async #put({ key, certificate }: Pick<ServerCertificate, 'key' | 'certificate'>): Promise<void> {
    await makeDirectory(this.#directory, 0o700)
    await writeFileAtomic(join(this.#directory, bundle), `${certificate}${key}`, 0o600)
    await this.#tell(fingerprintOf(certificate))
  }

  #orderKey(): string {
    return `cluster/acme/certificates/${this.#needs.settings.node}`
  }

  #tell(what: string): Promise<number> {
    return this.#needs.store.transact([], [{ put: `${changesBelow}${this.#needs.settings.node}`, value: what }])
  }
}

/** Keys in the store that change with the certificate of a node. */
export const changesBelow = 'cluster/certificates/'
