/** What a plan is run with, as parameters, and as the operation takes it. */
import { invalid } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { array, optional, string } from '#base/schema/schema.ts'
import type { RunPlan } from '#operations/plans/run-plan.ts'
import { decisionKinds } from '#plans/run-state.ts'
import { givenValues } from '#plans/variable.ts'

export const planId = string({
  description: 'Identifier of the plan, as its metadata names it.',
  pattern: /[\w./-]{1,200}/,
  maxLength: 200,
})
export const pairs = (description: string, isSecret = false) =>
  optional(array(string({ maxLength: limits.plans.valueBytes, isSecret }), { description }))

export const planParams = {
  plan: planId,
  document: string({ description: 'The plan.', minLength: 1, maxLength: limits.plans.documentBytes }),
  var: pairs('Values of variables, each `name=value`.'),
  confirm: pairs('Names of objects that may be destroyed.'),
} as const

export interface PlanParams {
  readonly plan: string
  readonly document: string
  readonly mode?: RunPlan['mode'] | undefined
  readonly in?: RunPlan['where'] | undefined
  readonly var?: readonly string[] | undefined
  readonly secret?: readonly string[] | undefined
  readonly confirm?: readonly string[] | undefined
  readonly 'grant-destroy'?: boolean | undefined
  readonly answer?: readonly string[] | undefined
  readonly decision?: readonly string[] | undefined
}

/** @throws Fault `invalid` naming the field */
export function requestOf(params: PlanParams): RunPlan {
  const { plan, document, mode = 'run', in: where = 'lab', confirm = [], 'grant-destroy': grant = false } = params
  return {
    mode,
    plan,
    document,
    where,
    confirmed: confirm,
    mayDestroyLive: grant,
    values: givenValues(params.var ?? []),
    secrets: givenValues(params.secret ?? []),
    answers: givenValues(params.answer ?? []),
    decisions: Object.entries(givenValues(params.decision ?? [])).map(([step, text]) => {
      const [, word = '', reason = ''] = /^(\w+):\s*(\S.*)$/s.exec(text) ?? []
      const kind = decisionKinds.find((one) => one === word)
      if (!kind) throw invalid({ decision: `'${step}=${text}' is not step=skip|waive|continue: why` })
      return { step, kind, reason: reason.replaceAll(/\s+/g, ' ') }
    }),
  }
}
