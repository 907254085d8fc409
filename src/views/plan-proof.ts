/** What an attempt of a plan is proof of: its signed record, and whether the signature holds. */
import type { PlanRecord } from '#plans/record.ts'
import { missing } from '#base/fault.ts'
import type { Services } from '#services.ts'

export interface PlanProof {
  readonly ok: boolean
  /** What is wrong with the evidence, a sentence each. */
  readonly complaints: readonly string[]
  /** As signed; absent when the evidence does not hold. */
  readonly record?: PlanRecord
}

/** @throws Fault `missing` when there is no such evidence, or it is of no plan */
export async function planProof({ recovery }: Pick<Services, 'recovery'>, id: string): Promise<PlanProof> {
  const { ok, complaints } = await recovery.verify(id)
  if (!ok) return { ok, complaints }
  const record = await recovery.record(id)
  if (record.kind !== 'plan') throw missing('evidence of a plan', id)
  // Signed by this node, so its shape is the node's word.
  return { ok, complaints, record: record as PlanRecord }
}
