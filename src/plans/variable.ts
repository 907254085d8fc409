/** Typed variables of a plan: what they may be, and their values for one run. */
import { Fault, invalid } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { textOf } from './template.ts'
import { isMap, type Value } from './value.ts'

export const variableTypes = ['text', 'name', 'number', 'guest', 'yes-no', 'secret'] as const
export type VariableType = (typeof variableTypes)[number]

export interface Variable {
  readonly name: string
  readonly type: VariableType
  readonly about?: string
  readonly default?: Value
  readonly choices?: readonly Value[]
}

export interface PlanSettings {
  readonly variables: readonly Variable[]
  /** Objects that were there before and that a destroy step may work on, as `guest/100`; places are filled. */
  readonly scope: readonly string[]
  /** How long a proof counts. */
  readonly proofDays: number
}

export const usualProofDays = 30
const variableName = /^[a-z][a-z0-9-]{0,39}$/
/** Names the runner gives values itself. */
const taken = ['node', 'run', 'steps', 'answer']

/** Reads the `plan` block; complaints go to `complain`. */
export function readSettings(value: Value, complain: (text: string) => void): PlanSettings {
  if (!isMap(value)) {
    complain('the plan block is no map')
    return { variables: [], scope: [], proofDays: usualProofDays }
  }
  for (const key of Object.keys(value)) {
    if (!['variables', 'scope', 'proof-days'].includes(key)) complain(`a plan block knows no '${key}'`)
  }
  const { variables = {}, scope = [], 'proof-days': days = usualProofDays } = value
  if (!isMap(variables)) complain('variables is no map')
  if (!Array.isArray(scope) || !scope.every((one) => typeof one === 'string')) complain('scope is no list of names')
  if (typeof days !== 'number' || days <= 0 || days > 3650) complain('proof-days is no number from 1 to 3650')
  const all = isMap(variables) ? Object.entries(variables) : []
  if (all.length > limits.plans.variables) complain(`there are more than ${limits.plans.variables} variables`)
  return {
    variables: all.slice(0, limits.plans.variables).flatMap(([name, facts]) => readVariable(name, facts, complain)),
    scope: Array.isArray(scope) ? scope.filter((one) => typeof one === 'string').slice(0, limits.plans.variables) : [],
    proofDays: typeof days === 'number' ? days : usualProofDays,
  }
}

function readVariable(name: string, facts: Value, complain: (text: string) => void): Variable[] {
  if (!variableName.test(name) || taken.includes(name)) complain(`'${name}' is no name for a variable`)
  if (!isMap(facts)) {
    complain(`variable '${name}' is no map`)
    return []
  }
  for (const key of Object.keys(facts)) {
    if (!['type', 'about', 'default', 'choices'].includes(key)) complain(`variable '${name}' knows no '${key}'`)
  }
  const type = variableTypes.find((one) => one === facts.type)
  if (!type) {
    complain(`the type of variable '${name}' is one of ${variableTypes.join(', ')}`)
    return []
  }
  const { default: usual, choices, about } = facts
  if (type === 'secret' && usual !== undefined) complain(`the secret '${name}' has its value in the document`)
  const variable: Variable = {
    name,
    type,
    ...(typeof about === 'string' ? { about } : {}),
    ...(Array.isArray(choices) ? { choices: choices as readonly Value[] } : {}),
  }
  if (usual === undefined || type === 'secret') return [variable]
  const wrong = typeof usual === 'string' && usual.includes('${{') ? 'holds a place itself' : whyNot(variable, usual)
  if (wrong !== undefined) complain(`the default of variable '${name}' ${wrong}`)
  return [{ ...variable, default: usual }]
}

/**
 * Values for a run: given ones over defaults.
 * @param given text by name, secrets not among them
 * @param secrets names of the secrets that are there
 * @throws Fault `invalid` naming every variable that is wrong or absent
 */
export function valuesFor(
  variables: readonly Variable[],
  given: Readonly<Record<string, string>>,
  secrets: readonly string[],
): Map<string, Value> {
  const wrong: Record<string, string> = {}
  const values = new Map<string, Value>()
  for (const name of [...Object.keys(given), ...secrets]) {
    const variable = variables.find((one) => one.name === name)
    if (!variable) wrong[name] = 'the plan has no such variable'
    else if ((variable.type === 'secret') !== secrets.includes(name)) {
      wrong[name] = variable.type === 'secret' ? 'it is a secret: give a reference to it' : 'it is no secret'
    }
  }
  for (const variable of variables) {
    if (variable.type === 'secret') {
      if (!secrets.includes(variable.name)) wrong[variable.name] = 'this secret is not given'
      continue
    }
    const text = Object.hasOwn(given, variable.name) ? given[variable.name] : undefined
    const value = text === undefined ? variable.default : typed(variable, text)
    const why = value === undefined ? 'it has no value and no default' : whyNot(variable, value)
    if (why !== undefined) wrong[variable.name] = why
    else if (value !== undefined) values.set(variable.name, value)
  }
  if (Object.keys(wrong).length > 0) throw invalid(wrong)
  return values
}

function typed({ type }: Variable, text: string): Value {
  if ((type === 'number' || type === 'guest') && /^-?\d+(\.\d+)?$/.test(text)) return Number(text)
  if (type === 'yes-no' && /^(yes|true|1|no|false|0)$/.test(text)) return /^(yes|true|1)$/.test(text)
  return text
}

function whyNot({ type, choices }: Variable, value: Value): string | undefined {
  if (choices && !choices.includes(value)) return `is none of ${choices.map(textOf).join(', ')}`
  if (textOf(value).length > limits.plans.valueBytes) return `is longer than ${limits.plans.valueBytes} letters`
  switch (type) {
    case 'secret':
      return undefined
    case 'text':
      return typeof value === 'string' && !/\p{Cc}/u.test(value) ? undefined : 'is no line of text'
    case 'name':
      return typeof value === 'string' && /^[a-zA-Z0-9][\w.@+-]{0,99}$/.test(value) ? undefined : 'is no name'
    case 'number':
      return typeof value === 'number' ? undefined : 'is no number'
    case 'guest':
      return typeof value === 'number' && Number.isInteger(value) && value >= 100 && value <= 999_999_999
        ? undefined
        : 'is no number of a guest (100 to 999999999)'
    case 'yes-no':
      return typeof value === 'boolean' ? undefined : 'is neither yes nor no'
    default:
      return type satisfies never
  }
}

/** `name=value` as given on a command line. @throws Fault `invalid` */
export function givenValues(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=')
      if (at < 1) throw new Fault('invalid', `'${pair}' is not name=value`)
      return [pair.slice(0, at), pair.slice(at + 1)]
    }),
  )
}
