/**
 * Drill records and evidence of this node: written once, listed, read, verified.
 *
 * A record exists exactly when its evidence does: the record *is* a file of the evidence, so there is no
 * second place that could say something else.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault, missing } from '#base/fault.ts'
import { type ChainVerdict, discardUnfinishedLinks, evidenceIn, extendChain, verifyChain } from './chain.ts'
import { discardUnfinished, type EvidenceVerdict, verifyEvidence, writeEvidence } from './evidence.ts'
import { nodeKey } from './node-key.ts'
import type { DrillRecord } from './record.ts'

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
  /** What a person can quote of it. */
  readonly quote?: string
}

export interface KeptDrill extends DrillRecord {
  /** Directory of its evidence. */
  readonly evidence: string
}

export interface KeptEvidence extends Partial<Pick<EvidenceRecord, 'ended' | 'quote'>> {
  readonly id: string
  readonly kind: 'drill' | 'plan' | 'unreadable'
  /** Its directory. */
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
    const { key } = await nodeKey(this.#keys)
    const [directory, drill] = [join(this.#directory, record.id), record.id]
    await extendChain(this.#directory, async (previous, announce) => {
      const sha256 = await writeEvidence({
        directory,
        drill,
        node: record.node,
        signed: record.ended,
        files: new Map([['record.json', `${JSON.stringify(record, null, 2)}\n`], ...files]),
        key,
        previous,
        beforeVisible: (hash) => announce({ drill, sha256: hash }),
      })
      return { drill, sha256 }
    })
    return directory
  }

  /** Removes what is left of evidence whose writer died. Finished evidence of that id stays. */
  async discardUnfinished(id: string): Promise<void> {
    await discardUnfinished(this.#directoryOf(id))
    await discardUnfinishedLinks(this.#directory)
  }

  /** Newest first. */
  async list(): Promise<KeptDrill[]> {
    const drills: KeptDrill[] = []
    for (const id of (await evidenceIn(this.#directory)).toReversed()) {
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

  /** Of drills and plans alike, newest first. One that cannot be read is there by its name. */
  async listAll(): Promise<KeptEvidence[]> {
    const all: KeptEvidence[] = []
    for (const id of (await evidenceIn(this.#directory)).toReversed()) {
      const evidence = this.#directoryOf(id)
      try {
        const { kind, ended, quote } = await this.record(id)
        all.push({
          id,
          kind: kind === 'plan' ? 'plan' : 'drill',
          ended,
          evidence,
          ...(quote !== undefined && { quote }),
        })
      } catch (fault) {
        if (!isFault(fault, 'missing') && !isFault(fault, 'damaged')) throw fault
        all.push({ id, kind: 'unreadable', evidence })
      }
    }
    return all
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

  /** Whether all evidence of this node is one chain without a break. */
  async verifyChain(): Promise<ChainVerdict> {
    return verifyChain(this.#directory, await this.publicKey())
  }

  #directoryOf(id: string): string {
    if (!/^[a-z0-9][a-z0-9-]{0,80}$/i.test(id)) throw missing('drill', id)
    return join(this.#directory, id)
  }
}
