/** A plan's file: read whole, looked at with what the node knows, and written back in one act. */
import { chown, readFile, realpath, stat } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { productVersion } from '#base/product.ts'
import { systemClock } from '#base/clock.ts'
import { asFileFault, writeFileAtomic } from '#host/files.ts'
import { bytesOf, documentOf, readDocument } from '#plans/document.ts'
import { withOutcome } from '#plans/outcome.ts'
import { type Plan, planOf } from '#plans/plan.ts'
import type { PlanRecord } from '#plans/record.ts'
import type { RunState } from '#plans/run-state.ts'
import { type PlanStanding, standingOf } from '#plans/status.ts'
import type { Connection } from '../connection.ts'
import { translation } from '../translation.ts'

export interface PlanFile {
  readonly path: string
  readonly plan: Plan
}

/** @throws Fault `missing`, `too-large`, `damaged` */
export async function readPlan(path: string): Promise<PlanFile> {
  const facts = await stat(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (!facts.isFile()) throw new Fault('invalid', `'${path}' is no file`)
  if (facts.size > limits.plans.documentBytes) {
    throw new Fault('too-large', `'${path}' is longer than the ${limits.plans.documentBytes} bytes a plan may have`)
  }
  return { path, plan: planOf(readDocument(await readFile(path))) }
}

/** The folder the names of files in a plan begin at: where its id leads to it, else its repository, else its own. */
export function rootOf({ path, plan }: PlanFile, isRepository: (folder: string) => boolean): string {
  const whole = resolve(path)
  if (plan.id !== '' && whole.endsWith(`${sep}${plan.id}`)) return whole.slice(0, -plan.id.length - 1) || sep
  for (let folder = dirname(whole); ; folder = dirname(folder)) {
    if (isRepository(folder)) return folder
    if (folder === dirname(folder)) return dirname(whole)
  }
}

interface Proof {
  readonly ok: boolean
  readonly record?: PlanRecord
}

/** Asks the node for the proofs a document names. Without a node nothing is proven. */
export async function standing(plan: Plan, connection: Connection | undefined): Promise<PlanStanding> {
  const named = [...plan.document.sections.values()].flatMap(({ items }) =>
    items.flatMap(({ mark }) => (mark ? [mark.evidence] : [])),
  )
  const proofs = new Map<string, Proof>()
  for (const evidence of new Set(named)) {
    const proof = connection && (await proofOf(connection, evidence))
    if (proof) proofs.set(evidence, proof)
  }
  const latest = connection && plan.id !== '' ? await newestRun(connection, plan.id) : undefined
  return standingOf(plan, { proofs, now: systemClock.now(), version: productVersion, latest })
}

async function proofOf(connection: Connection, evidence: string): Promise<Proof | undefined> {
  try {
    const { data } = await connection.call('GET', `/hako/plans/${encodeURIComponent(evidence)}/proof`)
    const { ok, record } = data as { readonly ok: unknown; readonly record?: PlanRecord }
    return { ok: ok === true || ok === 1, ...(record ? { record } : {}) }
  } catch (error) {
    if (isFault(error, 'missing')) return { ok: false }
    throw error
  }
}

export async function newestRun(connection: Connection, plan: string): Promise<RunState | undefined> {
  const { data } = await connection.call('GET', '/hako/plans', { plan })
  const [newest] = data as { readonly run: string }[]
  if (!newest) return undefined
  return (await connection.call('GET', `/hako/plans/${encodeURIComponent(newest.run)}`)).data as RunState
}

/**
 * Writes what the attempts of a run found, as far as it is signed and not there yet. What a person wrote meanwhile
 * stays: the file is read anew. @returns whether anything was written
 */
export async function writeOutcome(path: string, run: RunState, connection: Connection): Promise<boolean> {
  const records: PlanRecord[] = []
  for (const { id, ended } of run.attempts) {
    const proof = ended === undefined ? undefined : await proofOf(connection, id)
    if (proof?.ok && proof.record) records.push(proof.record)
  }
  const file = await realpath(path)
  const { plan } = await readPlan(file)
  const translate = await translation(plan.document.language)
  const text = records.reduce(
    (now, record) => withOutcome(planOf(documentOf(now)), record, translate),
    plan.document.text,
  )
  if (text === plan.document.text) return false
  const { mode, uid, gid } = await stat(file)
  await writeFileAtomic(file, bytesOf(plan.document, text), mode & 0o777)
  // Who owns the plan goes on owning it when root runs it.
  if (process.getuid?.() === 0) await chown(file, uid, gid)
  return true
}

/** For messages: the name of a file from where the person stands. */
export function shown(path: string): string {
  const here = `${process.cwd()}${sep}`
  return path.startsWith(here) ? join(path.slice(here.length)) : path
}
