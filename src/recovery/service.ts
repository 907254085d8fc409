/**
 * Drill records and evidence of this node: written once, listed, read, verified.
 *
 * A record exists exactly when its evidence does: the record *is* a file of the evidence, so there is no
 * second place that could say something else.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault, missing } from '#base/fault.ts'
import { codeOf, makeDirectory } from '#host/files.ts'
import { discardUnfinished, type EvidenceVerdict, manifestHash, verifyEvidence, writeEvidence } from './evidence.ts'
import { nodeKey } from './node-key.ts'
import type { DrillRecord } from './record.ts'

/** How many by name are looked at for the one that was signed last: more do not run at once. */
const looksBack = 64

export interface RecoveryFacts {
  readonly stateDir: string
}

/** What any record of evidence says of itself. A drill's has more, a plan's other things; `kind` tells them apart. */
export interface EvidenceRecord {
  readonly id: string
  readonly node: string
  /** ISO time. */
  readonly ended: string
  readonly kind?: string
}

export interface KeptDrill extends DrillRecord {
  /** Directory of its evidence. */
  readonly evidence: string
}

export class RecoveryService {
  readonly #directory: string
  readonly #keys: string

  constructor({ stateDir }: RecoveryFacts) {
    this.#directory = join(stateDir, 'evidence')
    this.#keys = join(stateDir, 'keys')
  }

  /** Path of the public key that verifies this node's evidence. */
  get publicKeyPath(): string {
    return join(this.#keys, 'evidence.pub')
  }

  async publicKey(): Promise<string> {
    return (await nodeKey(this.#keys)).publicKey
  }

  /** Signs and keeps a drill, or another record in the same chain. @returns the directory of its evidence. @throws Fault `exhausted` */
  async keep(record: EvidenceRecord, files: ReadonlyMap<string, string | Uint8Array>): Promise<string> {
    // A console or a screen may show what is not everybody's.
    await makeDirectory(this.#directory, 0o700)
    const { key } = await nodeKey(this.#keys)
    const directory = join(this.#directory, record.id)
    await writeEvidence({
      directory,
      drill: record.id,
      node: record.node,
      signed: record.ended,
      files: new Map([['record.json', `${JSON.stringify(record, null, 2)}\n`], ...files]),
      key,
      previous: await this.#newest(),
    })
    return directory
  }

  /** Removes what is left of evidence whose writer died. Finished evidence of that id stays. */
  async discardUnfinished(id: string): Promise<void> {
    await discardUnfinished(this.#directoryOf(id))
  }

  /** Newest first. */
  async list(): Promise<KeptDrill[]> {
    const drills: KeptDrill[] = []
    for (const id of (await this.#ids()).toReversed()) {
      try {
        const drill = await this.get(id)
        if (drill.kind !== 'plan') drills.push(drill)
      } catch (error) {
        // A directory somebody damaged must not hide the others; `verify` names what is wrong with it.
        if (!isFault(error, 'missing') && !(error instanceof SyntaxError)) throw error
      }
    }
    return drills
  }

  /** @throws Fault `missing` */
  async get(id: string): Promise<KeptDrill> {
    const evidence = this.#directoryOf(id)
    const text = await readFile(join(evidence, 'record.json'), 'utf8').catch(() => {
      throw missing('drill', id)
    })
    return { ...(JSON.parse(text) as DrillRecord), evidence }
  }

  /** A record as it lies there. @throws Fault `missing`, `damaged` */
  async record(id: string): Promise<EvidenceRecord> {
    const path = join(this.#directoryOf(id), 'record.json')
    const text = await readFile(path, 'utf8').catch(() => {
      throw missing('evidence', id)
    })
    try {
      return JSON.parse(text) as EvidenceRecord
    } catch (cause) {
      throw new Fault('damaged', `the record of evidence '${id}' is damaged`, { cause })
    }
  }

  async verify(id: string): Promise<EvidenceVerdict> {
    return verifyEvidence(this.#directoryOf(id), await this.publicKey())
  }

  /**
   * The one the next evidence vouches for: the last that was signed, which what is named by its beginning does not
   * tell. One somebody damaged must not keep new ones from being written.
   */
  async #newest(): Promise<{ drill: string; sha256: string } | undefined> {
    for (const drill of await this.#lastSigned()) {
      const sha256 = await manifestHash(join(this.#directory, drill)).catch((cause: unknown) => {
        if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== 'ENOTDIR') throw cause
      })
      if (sha256 !== undefined) return { drill, sha256 }
    }
    return undefined
  }

  async #lastSigned(): Promise<string[]> {
    const latest = (await this.#ids()).toReversed().slice(0, looksBack)
    const signed = await Promise.all(
      latest.map(async (id) => ({
        id,
        at: (await stat(join(this.#directory, id)).catch(() => undefined))?.mtimeMs ?? 0,
      })),
    )
    return signed.toSorted((a, b) => b.at - a.at).map(({ id }) => id)
  }

  #directoryOf(id: string): string {
    if (!/^[a-z0-9][a-z0-9-]{0,80}$/i.test(id)) throw missing('drill', id)
    return join(this.#directory, id)
  }

  /** Ids begin with their time, so sorting them sorts by age. */
  async #ids(): Promise<string[]> {
    const names = await readdir(this.#directory).catch(() => [])
    return names.filter((name) => !name.startsWith('.')).toSorted()
  }
}
