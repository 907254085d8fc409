/**
 * What the handbook says was run, and the evidence of it.
 *
 * A block of commands in a chapter names the step of a plan that ran it: ```` ```sh proven=plans/x.md#step ````. The evidence
 * of those runs lies in `manuscript/runs`, with the public key of the node that signed it: a block without evidence, or
 * whose text is not what was run, is no procedure and fails the build.
 */
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PlanRecord } from '#plans/record.ts'
import { verifyEvidence } from '#recovery/evidence.ts'

export interface Proof {
  /** `plans/x.md#step` */
  readonly step: string
  /** What was called. */
  readonly call: string
  readonly tookMs: number
  /** ISO time of its end. */
  readonly ended: string
  readonly version: string
  readonly evidence: string
  readonly recorded: Readonly<Record<string, string>>
}

export interface Block {
  readonly file: string
  readonly line: number
  /** Of its opening line. */
  readonly step: string | undefined
  readonly text: string
}

const block = /^```sh(?: proven=(\S+))?\n([\s\S]*?)^```$/gm

/** Steps that were proven, by `plans/x.md#step`. @throws Error when evidence is not what was signed */
export async function readProofs(manuscript: string): Promise<ReadonlyMap<string, Proof>> {
  const runs = join(manuscript, 'runs')
  const proofs = new Map<string, Proof>()
  if (!existsSync(runs)) return proofs
  const key = readFileSync(join(runs, 'evidence.pub'), 'utf8')
  for (const name of readdirSync(runs).toSorted()) {
    if (name === 'evidence.pub') continue
    const { ok, complaints } = await verifyEvidence(join(runs, name), key)
    if (!ok) throw new Error(`${join(runs, name)}: ${complaints.join('; ')}`)
    const record = JSON.parse(readFileSync(join(runs, name, 'record.json'), 'utf8')) as PlanRecord
    for (const { id, result, call = '', tookMs = 0, ended = record.ended, recorded = {} } of record.steps) {
      if (result !== 'proven') continue
      const step = `${record.plan.id}#${id}`
      const texts = Object.entries(recorded).map(([field, value]) => [
        field,
        typeof value === 'string' ? value : JSON.stringify(value),
      ])
      proofs.set(step, {
        step,
        call,
        tookMs,
        ended,
        version: record.version,
        evidence: name,
        recorded: Object.fromEntries(texts) as Record<string, string>,
      })
    }
  }
  return proofs
}

/** Every block of commands in the chapters. */
export function blocksIn(manuscript: string): Block[] {
  const files = globSync('{ja,en}/**/*.md', { cwd: manuscript }).toSorted()
  return files.flatMap((file) => {
    const text = readFileSync(join(manuscript, file), 'utf8')
    return [...text.matchAll(block)].map(({ 1: step, 2: content = '', index }) => ({
      file,
      line: text.slice(0, index).split('\n').length,
      step,
      text: content.trimEnd(),
    }))
  })
}

/** A chapter in which each block holds what was run. */
export function withCommands(text: string, proofs: ReadonlyMap<string, Proof>): string {
  return text.replaceAll(block, (whole, step: string | undefined) => {
    const proof = step === undefined ? undefined : proofs.get(step)
    return proof ? `\`\`\`sh proven=${proof.step}\n${commandOf(proof)}\n\`\`\`` : whole
  })
}

/** What of it was not run as it stands there. */
export function unproven(blocks: readonly Block[], proofs: ReadonlyMap<string, Proof>): string[] {
  return blocks.flatMap(({ file, line, step, text }) => {
    const at = `${file}:${line}`
    if (step === undefined) return [`${at}: names no step that ran it`]
    const proof = proofs.get(step)
    if (!proof) return [`${at}: no evidence of ${step}`]
    return commandOf(proof) === plain(text) ? [] : [`${at}: what ${step} ran was: ${commandOf(proof)}`]
  })
}

/** As a person types it; records have no quotes. */
function commandOf({ call }: Proof): string {
  return call.startsWith('hako ') ? call : `hako api ${call}`
}

function plain(text: string): string {
  return text.replaceAll(/\\\n\s*/g, '').replaceAll(/["']/g, '')
}
