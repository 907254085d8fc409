/**
 * What a run may destroy, and what it may make.
 *
 * It destroys what it made itself, or what the plan names in its scope, and that only where a person has typed the
 * name; on a node that is no lab a grant is needed besides. Which object a call destroys is read from the call.
 */
import { Fault } from '#base/fault.ts'
import { exists } from './act.ts'
import { destroyedBy } from './object.ts'
import type { RunState } from './run-state.ts'
import type { PlanStep } from './plan.ts'
import { filledText, namesIn, type Values } from './template.ts'
import type { Call, PlanWorld } from './world.ts'

export interface Grants {
  /** Names of objects somebody typed. */
  readonly confirmed: readonly string[]
  /** Given on the command line for a node that is no lab. */
  readonly mayDestroyLive: boolean
  /** Names in the plan's scope, filled. */
  readonly scope: readonly string[]
}

export interface GrantFacts {
  readonly state: RunState
  readonly values: Values
  readonly grants: Grants
}

/** @throws Fault `denied`, before anything is called */
export async function demandGrant(step: PlanStep, { state, values, grants }: GrantFacts): Promise<void> {
  if (step.class !== 'destroy' || step.destroys === undefined) return
  const object = filledText(step.destroys, values)
  const isOwn = state.made.some((one) => one.object === object)
  if (!isOwn && !grants.scope.includes(object)) {
    throw new Fault('denied', `${object} was not made by this run and is not in the scope of the plan`, {
      remedy: 'Name it in the plan block: scope.',
    })
  }
  if (!grants.confirmed.includes(object)) {
    throw new Fault('denied', `${object} is destroyed only when its name is typed`, {
      remedy: `Repeat it with --confirm ${object}.`,
    })
  }
  if (state.where === 'live' && !grants.mayDestroyLive) {
    throw new Fault('denied', `${object} is not destroyed on a live node without a grant`, {
      remedy: 'Give it with --grant-destroy.',
    })
  }
}

/**
 * What can be refused before anything is done, is: every destroy step whose object has its name by now.
 * @throws Fault `denied`
 */
export async function demandGrants(steps: readonly PlanStep[], facts: GrantFacts): Promise<void> {
  const { values, state } = facts
  const isKnown = (name: string) => namesIn(name).names.every((one) => values.has(one))
  const made = steps.flatMap(({ makes, id, destroys }) =>
    makes !== undefined && makes !== destroys && isKnown(makes)
      ? [{ object: filledText(makes, values), step: id }]
      : [],
  )
  const then = { ...state, made: [...state.made, ...made] }
  for (const step of steps) {
    const isOpen = state.steps[step.id]?.result !== 'proven'
    if (isOpen && step.destroys !== undefined && isKnown(step.destroys))
      await demandGrant(step, { ...facts, state: then })
  }
}

/** Before a call of a step's act: it destroys what the step says, or nothing. @throws Fault `denied` */
export function demandDeclared(step: PlanStep, call: Call, values: Values): void {
  // What a command calls is known only now.
  if (step.class === 'read' && step.act.kind === 'hako' && call.method !== 'GET') {
    throw new Fault('denied', `a step of class read would call ${call.method} ${call.path}`, {
      remedy: 'Give the step the class of what it does.',
    })
  }
  const object = destroyedBy(call.method, call.path, call.params)
  const declared = step.destroys === undefined ? undefined : filledText(step.destroys, values)
  if (object === undefined || object === declared) return
  throw new Fault('denied', `the step would destroy ${object}, which it does not say`, {
    remedy: `Mark it: class: destroy, destroys: ${object}.`,
  })
}

/** Before a call of an undo: it removes what this run made, or nothing. @throws Fault `denied` */
export function demandOwn(call: Call, state: RunState): void {
  const object = destroyedBy(call.method, call.path, call.params)
  if (object === undefined || state.made.some((one) => one.object === object)) return
  throw new Fault('denied', `${object} was not made by this run: no undo removes it`, {
    remedy: 'Say with makes what a step makes.',
  })
}

/** @throws Fault `conflict` when the object is there and not of this run's making */
export async function demandUnmade(object: string, step: PlanStep, state: RunState, world: PlanWorld): Promise<void> {
  if (state.made.some((one) => one.object === object && one.step === step.id)) return
  if (await exists(object, world)) {
    throw new Fault('conflict', `${object} exists already, and this run did not make it`, {
      remedy: 'Give the plan another name for it with --var.',
    })
  }
}
