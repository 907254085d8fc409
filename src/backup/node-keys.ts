/**
 * What a node keeps to get into its datastores: a key of its own, by which daemon and tasks open them without anybody,
 * and the public half of its recovery key, which locks and opens nothing.
 *
 * The recovery key itself is shown once and kept nowhere. Whoever loses the node has it on paper, and only it: so nothing
 * is backed up before somebody has shown that they hold it. Another one takes its place in the same two steps, and the
 * one before holds until the second.
 */
import { createHash } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, seconds } from '#base/clock.ts'
import { Fault, invalid, isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { checkProperties } from '#base/schema/check.ts'
import { array, integer, object, optional, string, type StaticProperties } from '#base/schema/schema.ts'
import { printRecoveryKey, publicHalfOf, type SlotSecret } from '#datastore/keys/slot.ts'
import { seal, unseal } from '#datastore/sealed.ts'
import { privateOf, publicOf } from '#datastore/keys/x25519.ts'
import { asFileFault, codeOf, makeDirectory, readIfPresent, syncDirectory, writeFileAtomic } from '#host/files.ts'
import { madeOnce } from '#host/files/make-once.ts'

const keyBytes = 32
/** Datastores that were away for longer than so many changes of the key are tidied by hand. */
const retiredMaximum = 32

const half = object({
  /** Public half, base64. */
  public: string({ pattern: /[A-Za-z0-9+/]{43}=/ }),
  /** Seconds since 1970. */
  created: integer({ minimum: 0, maximum: 253_402_300_799 }),
})
const properties = {
  /** In force: somebody has shown that they have it. */
  confirmed: optional(half),
  /** Printed, and not shown yet. */
  pending: optional(half),
  /** Public halves of those before. */
  retired: array(string({ maxLength: 44 })),
}

type Kept = StaticProperties<typeof properties>

export interface RecoveryKeyStatus {
  /** Nothing is backed up before one is confirmed. */
  readonly state: 'none' | 'unconfirmed' | 'confirmed'
  readonly created?: number
  /** Of the printed key, to tell one from another: it says nothing about the key. */
  readonly fingerprint?: string
  /** Fingerprint of one that was printed to take its place, and not confirmed yet. */
  readonly pending?: string
}

export interface PrintedKey {
  /** Shown once. */
  readonly key: string
  readonly fingerprint: string
}

export interface NodeKeysNeeds {
  readonly settings: { readonly stateDir: string; readonly node: string }
  readonly clock: Clock
  readonly random: Random
}

export class NodeKeys {
  readonly node: string
  readonly #directory: string
  readonly #needs: NodeKeysNeeds

  constructor(needs: NodeKeysNeeds) {
    this.#needs = needs
    this.node = needs.settings.node
    this.#directory = join(needs.settings.stateDir, 'keys')
  }

  /** Opens every datastore of the node; made once. */
  async own(): Promise<SlotSecret> {
    const key = await madeOnce(this.#ownPath, () => this.#needs.random.bytes(keyBytes)).catch((cause: unknown) => {
      if (!isFault(cause, 'exhausted')) throw cause
      // Not the storage it is wanted for.
      throw new Fault('exhausted', `no space left for the key of this node '${this.#ownPath}'`, {
        cause,
        remedy: 'Free space on its file system, then try again.',
      })
    })
    if (key.length === keyBytes) return { kind: 'key', key }
    throw new Fault('damaged', `'${this.#ownPath}' is damaged: a key has ${keyBytes} bytes`, {
      remedy:
        'Bring it back from a copy, or show the recovery key, and the node gets another one: `hako recovery-key use`.',
    })
  }

  /** Tells one key of the node from another, and nothing about it; nothing while there is none. */
  async ownFingerprint(): Promise<string | undefined> {
    const key = await this.#ownIfGood()
    return key && fingerprintOf(publicOf(privateOf(key)).toString('base64'))
  }

  /**
   * A key for the node where there is none that is good, or where another one is wanted. It is the node's own once it is
   * kept, so that it can be let into datastores before the one it has is gone.
   */
  async ownOrFresh({ replaces }: { readonly replaces: boolean }): Promise<{ key: Buffer; isFresh: boolean }> {
    const key = replaces ? undefined : await this.#ownIfGood()
    return key ? { key, isFresh: false } : { key: Buffer.from(this.#needs.random.bytes(keyBytes)), isFresh: true }
  }

  async keepOwn(key: Buffer): Promise<void> {
    await makeDirectory(this.#directory, 0o700)
    await writeFileAtomic(this.#ownPath, key, 0o600)
  }

  /** Nothing opens any more until somebody shows the recovery key. @throws Fault `conflict` when nobody has one */
  async forgetOwn(): Promise<void> {
    await this.requireRecovery()
    await rm(this.#ownPath, { force: true })
    await syncDirectory(this.#directory)
  }

  async #ownIfGood(): Promise<Buffer | undefined> {
    try {
      const key = await readFile(this.#ownPath)
      return key.length === keyBytes ? key : undefined
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return undefined
      throw asFileFault(cause, this.#ownPath)
    }
  }

  async status(): Promise<RecoveryKeyStatus> {
    const { confirmed, pending } = await this.#kept()
    const shown = confirmed ?? pending
    if (!shown) return { state: 'none' }
    const facts = { created: shown.created, fingerprint: fingerprintOf(shown.public) }
    if (!confirmed) return { state: 'unconfirmed', ...facts }
    return { state: 'confirmed', ...facts, ...(pending && { pending: fingerprintOf(pending.public) }) }
  }

  /**
   * Makes a recovery key, which counts once it is confirmed. One that nobody has confirmed is forgotten.
   * @param replaces whether there may be one in force
   * @throws Fault `conflict`
   */
  async create({ replaces }: { readonly replaces: boolean }): Promise<PrintedKey> {
    const kept = await this.#kept()
    if (kept.confirmed && !replaces) {
      throw new Fault('conflict', 'this node has a recovery key, and somebody has confirmed it', {
        remedy: 'To have another one in its place: `hako recovery-key create --replace`.',
      })
    }
    const key = printRecoveryKey(Buffer.from(this.#needs.random.bytes(keyBytes)))
    const made = { public: publicHalfOf(key).toString('base64'), created: seconds(this.#needs.clock) }
    await this.#keep({ ...kept, pending: made })
    return { key, fingerprint: fingerprintOf(made.public) }
  }

  /** Somebody shows that they have the key. @throws Fault `invalid` for another one, `missing` when none was made */
  async confirm(text: string): Promise<void> {
    const { confirmed, pending, retired } = await this.#kept()
    const shown = publicHalfOf(text).toString('base64')
    if (confirmed?.public === shown && !pending) return
    if (!pending && !confirmed) {
      throw new Fault('missing', 'this node has no recovery key yet', {
        remedy: '`hako recovery-key create` makes one.',
      })
    }
    if (pending?.public !== shown) {
      const rule = 'it is a recovery key, but not the one this node has printed last'
      throw new Fault('invalid', 'Parameter verification failed.', { fields: { key: rule } })
    }
    const before = confirmed ? [confirmed.public] : []
    await this.#keep({ confirmed: pending, retired: [...retired, ...before].slice(-retiredMaximum) })
  }

  /**
   * The key of this node, or one for a node that has none.
   * @throws Fault `invalid` for what is no recovery key, or not the one in force
   */
  async demandInForce(text: string): Promise<{ readonly isInForce: boolean }> {
    const shown = publicHalfOf(text).toString('base64')
    const { confirmed } = await this.#kept()
    if (!confirmed || confirmed.public === shown) return { isInForce: confirmed !== undefined }
    const rule = 'it is a recovery key, but not the one of this node'
    throw invalid(
      { key: rule },
      { remedy: 'What another key opens, the node is let into one by one: `hako backup attach`.' },
    )
  }

  /** A node that has none takes one that is printed already. */
  async adopt(text: string): Promise<void> {
    const { isInForce } = await this.demandInForce(text)
    if (isInForce) return
    const made = { public: publicHalfOf(text).toString('base64'), created: seconds(this.#needs.clock) }
    await this.#keep({ ...(await this.#kept()), confirmed: made })
  }

  /** @throws Fault `conflict` before somebody has confirmed one */
  async requireRecovery(): Promise<{ readonly public: Buffer; readonly retired: readonly string[] }> {
    const { confirmed, retired } = await this.#kept()
    if (confirmed) return { public: Buffer.from(confirmed.public, 'base64'), retired }
    throw new Fault('conflict', 'nobody has confirmed a recovery key of this node', {
      remedy:
        'Print one, `hako recovery-key create`, and show that you have it: `hako recovery-key confirm`. Without it, who loses the node loses every backup.',
    })
  }

  async #kept(): Promise<Kept> {
    const path = this.#path
    const text = await readIfPresent(path)
    if (text === undefined) return { retired: [] }
    const checked = checkProperties(properties, Object(unseal(text, `'${path}'`)) as Record<string, unknown>)
    if (checked.ok) return checked.values
    throw new Fault('damaged', `'${path}' is damaged: it does not describe a recovery key`)
  }

  async #keep(kept: Kept): Promise<void> {
    const given = Object.entries(kept).filter(([, value]) => value !== undefined)
    await makeDirectory(this.#directory, 0o700)
    await writeFileAtomic(this.#path, seal(Object.fromEntries(given)))
  }

  get #ownPath(): string {
    return join(this.#directory, 'datastore.key')
  }

  get #path(): string {
    return join(this.#directory, 'recovery-key')
  }
}

function fingerprintOf(publicHalf: string): string {
  return createHash('sha256').update(Buffer.from(publicHalf, 'base64')).digest('hex').slice(0, 16)
}
