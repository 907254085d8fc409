/** A step of a plan: what its `step` block says, typed. */
import { createHash } from 'node:crypto'
import { limits } from '#base/limits.ts'
import { type Expectation, readExpectations } from './expect.ts'
import { isMap, type Value } from './value.ts'
import { readYaml } from './yaml.ts'

/** What a step does to the world, from harmless to final. */
export const stepClasses = ['read', 'create', 'change', 'destroy'] as const
export type StepClass = (typeof stepClasses)[number]

export type ValueMap = { readonly [key: string]: Value }

export interface ApiAct {
  readonly kind: 'api'
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly path: string
  readonly with: ValueMap
}
export interface CommandAct {
  readonly kind: 'hako'
  readonly words: readonly string[]
}
export type Act =
  | ApiAct
  | CommandAct
  | { readonly kind: 'drill'; readonly with: ValueMap }
  /** Somebody inside a guest is asked: for a file, for the end of a program, or whether there is anybody. */
  | { readonly kind: 'probe'; readonly guest: Value; readonly file?: string; readonly run?: readonly string[] }
  | { readonly kind: 'wait'; readonly until: ApiAct; readonly for: readonly Expectation[] }
  | { readonly kind: 'ask'; readonly question: string; readonly choices?: readonly string[] }

export interface Step {
  readonly id: string
  readonly class: StepClass
  readonly act: Act
  /** When its reply shows this already, the act is not done. */
  readonly unless?: { readonly ask: ApiAct; readonly for: readonly Expectation[] }
  /** The act must fail, with this in what it says. */
  readonly fails?: string
  /** Read after the act; what is expected and recorded is then looked for in its reply. */
  readonly look?: ApiAct
  readonly expect: readonly Expectation[]
  /** Name to the path of what is kept for later steps and for the evidence. */
  readonly record: readonly { readonly name: string; readonly path: string }[]
  readonly undo: readonly (ApiAct | CommandAct)[]
  /** Undone at the end of the run, too: what it made was only for the run. */
  readonly isScratch: boolean
  /** May be done again when nobody knows whether it was done. */
  readonly isRepeatable: boolean
  /** How often it is tried again when it fails. */
  readonly retries: number
  readonly timeoutSeconds: number
  /** Name of the object it makes, as `guest/101`. */
  readonly makes?: string
  /** Name of the object it destroys. */
  readonly destroys?: string
  /** Of everything above: a proof is of the step as it was. */
  readonly digest: string
}

export interface StepComplaint {
  /** Line in the block, from 1. */
  readonly line: number
  readonly text: string
}

export interface ReadStep {
  /** Absent when the block cannot be used. */
  readonly step?: Step
  readonly complaints: readonly StepComplaint[]
}

export const stepId = /^[a-z][a-z0-9-]{0,39}$/
const recordName = /^[a-z][a-z0-9-]{0,39}$/
const keys = [
  'id',
  'class',
  'run',
  'look',
  'unless',
  'fails',
  'expect',
  'record',
  'undo',
  'scratch',
  'repeatable',
  'retries',
  'timeout',
  'makes',
  'destroys',
]
const usualTimeoutSeconds = 600

export function readStep(content: string): ReadStep {
  const read = readYaml(content)
  if ('complaint' in read) return { complaints: [read.complaint] }
  const complaints: StepComplaint[] = []
  const reader = new StepReader(content, (text, key) => complaints.push({ line: lineOf(content, key), text }))
  const step = reader.step(read.value)
  return step && complaints.length === 0 ? { step, complaints } : { complaints }
}

function lineOf(content: string, key: string | undefined): number {
  const at = key === undefined ? -1 : content.split('\n').findIndex((line) => line.trimStart().startsWith(`${key}:`))
  return Math.max(0, at) + 1
}

type Complain = (text: string, key?: string) => void

class StepReader {
  readonly #content: string
  readonly #complain: Complain

  constructor(content: string, complain: Complain) {
    this.#content = content
    this.#complain = complain
  }

  step(value: Value): Step | undefined {
    if (!isMap(value)) {
      this.#complain('a step is a map with id, class and run')
      return undefined
    }
    for (const key of Object.keys(value)) if (!keys.includes(key)) this.#complain(`a step knows no '${key}'`, key)
    const id = typeof value.id === 'string' && stepId.test(value.id) ? value.id : undefined
    if (id === undefined) this.#complain('id is missing, or is not lower-case letters, digits and -', 'id')
    const known = stepClasses.find((one) => one === value.class)
    if (!known) this.#complain(`class is one of ${stepClasses.join(', ')}`, 'class')
    const act = this.#act(value.run, 'run')
    const look = value.look === undefined ? undefined : this.#api(value.look, 'look')
    if (look && look.method !== 'GET') this.#complain('look reads: GET /path', 'look')
    const expect = readExpectations(value.expect ?? {}, (text) => this.#complain(text, 'expect'))
    const rest = { ...this.#bounds(value), ...this.#objects(value), record: this.#record(value.record ?? {}) }
    if (id === undefined || !known || !act) return undefined
    this.#judgeClass(known, act, value)
    return {
      id,
      class: known,
      act,
      ...(look ? { look } : {}),
      ...this.#around(value),
      expect,
      undo: this.#undo(value.undo),
      ...rest,
      digest: createHash('sha256').update(JSON.stringify(value)).digest('hex'),
    }
  }

  #around(value: ValueMap): Pick<Step, 'unless' | 'fails'> {
    const { unless, fails } = value
    if (fails !== undefined && (typeof fails !== 'string' || fails.trim() === ''))
      this.#complain('fails is what the failure says', 'fails')
    const failing = typeof fails === 'string' ? { fails } : {}
    if (unless === undefined) return failing
    const ask = this.#api(unless, 'unless')
    const wanted = readExpectations(isMap(unless) ? (unless.for ?? {}) : {}, (text) => this.#complain(text, 'unless'))
    if (ask?.method === 'GET' && wanted.length > 0) return { ...failing, unless: { ask, for: wanted } }
    this.#complain('unless takes a call that reads, and `for` what its reply must show', 'unless')
    return failing
  }

  #bounds(value: ValueMap): Pick<Step, 'isScratch' | 'isRepeatable' | 'retries' | 'timeoutSeconds'> {
    const yes = (key: 'scratch' | 'repeatable', usual: boolean): boolean => {
      const given = value[key] ?? usual
      if (typeof given !== 'boolean') this.#complain(`${key} is true or false`, key)
      return given === true
    }
    const whole = (key: 'retries' | 'timeout', usual: number, least: number, most: number): number => {
      const given = value[key] ?? usual
      const isGood = typeof given === 'number' && Number.isInteger(given) && given >= least && given <= most
      if (!isGood) this.#complain(`${key} is a whole number from ${least} to ${most}`, key)
      return isGood ? given : usual
    }
    return {
      isScratch: yes('scratch', false),
      isRepeatable: yes('repeatable', value.class === 'read'),
      retries: whole('retries', 0, 0, 10),
      timeoutSeconds: whole('timeout', usualTimeoutSeconds, 1, limits.plans.stepSeconds),
    }
  }

  #objects(value: ValueMap): Pick<Step, 'makes' | 'destroys'> {
    const named = (key: 'makes' | 'destroys') => {
      const given = value[key]
      if (given === undefined) return {}
      if (typeof given === 'string' && /^[a-z]+\/\S{1,500}$|^[a-z]+\/.*\$\{\{.*$/.test(given)) return { [key]: given }
      this.#complain(`${key} names an object, such as guest/101`, key)
      return {}
    }
    return { ...named('makes'), ...named('destroys') }
  }

  #record(value: Value): Step['record'] {
    if (!isMap(value)) {
      this.#complain('record is a map from names to where the value is', 'record')
      return []
    }
    return Object.entries(value).flatMap(([name, path]) => {
      if (recordName.test(name) && (typeof path === 'string' || typeof path === 'number'))
        return [{ name, path: String(path) }]
      this.#complain(`record: '${name}' is no name, or says not where its value is`, 'record')
      return []
    })
  }

  #undo(value: Value | undefined): Step['undo'] {
    if (value === undefined) return []
    const all = (Array.isArray(value) ? value : [value]) as readonly Value[]
    return all.flatMap((one): (ApiAct | CommandAct)[] => {
      const act = this.#act(one, 'undo')
      if (act?.kind === 'api' || act?.kind === 'hako') return [act]
      if (act) this.#complain('undo is a call of the API or a hako command', 'undo')
      return []
    })
  }

  #act(value: Value | undefined, key: 'run' | 'undo'): Act | undefined {
    if (!isMap(value)) {
      this.#complain(`${key} says what to do: api, hako, drill, probe, wait or ask`, key)
      return undefined
    }
    const [kind, ...others] = Object.keys(value).filter((name) => !['with', 'for', 'choices'].includes(name))
    if (others.length > 0) this.#complain(`${key} does one thing, not ${[kind, ...others].join(' and ')}`, key)
    switch (kind) {
      case 'api':
        return this.#api(value, key)
      case 'hako':
        return this.#command(value.hako, key)
      case 'drill':
        if (isMap(value.drill)) return { kind, with: value.drill }
        this.#complain('drill takes what `hako drill run` does, as a map', key)
        return undefined
      case 'probe':
        return this.#probe(value.probe)
      case 'wait': {
        const until = isMap(value.wait) ? this.#api(value.wait, key) : undefined
        const wanted = readExpectations(value.for ?? {}, (text) => this.#complain(text, key))
        if (until?.method === 'GET' && wanted.length > 0) return { kind, until, for: wanted }
        this.#complain('wait takes a call that reads, and `for` what its reply must show', key)
        return undefined
      }
      case 'ask':
        return this.#ask(value, key)
      default:
        this.#complain(`${key} says what to do: api, hako, drill, probe, wait or ask`, key)
        return undefined
    }
  }

  #api(value: Value, key: string): ApiAct | undefined {
    const given = isMap(value) ? value.api : undefined
    const parts = isMap(value) ? (value.with ?? {}) : {}
    const [, method = '', path = ''] =
      /^(GET|POST|PUT|DELETE) (\/[\x21-\x7e ]*)$/.exec(typeof given === 'string' ? given : '') ?? []
    const isPlain = !path.split('/').some((part) => part === '.' || part === '..') && !/[?#%]/.test(path)
    if (path === '' || !isPlain || path.replaceAll(/\$\{\{[^}]*\}\}/g, '').includes(' ')) {
      this.#complain(`${key}: a call of the API reads GET /path, without . or .. or a query`, key)
      return undefined
    }
    if (!isMap(parts)) {
      this.#complain(`${key}: with is a map of parameters`, key)
      return undefined
    }
    return { kind: 'api', method: method as ApiAct['method'], path, with: parts }
  }

  #command(value: Value | undefined, key: string): CommandAct | undefined {
    // Split before anything is filled in: what a variable holds stays one word.
    const words = typeof value === 'string' ? (value.match(/(?:\$\{\{[^}]*\}\}|\S)+/g) ?? []) : value
    if (
      Array.isArray(words) &&
      words.length > 0 &&
      words.every((one) => typeof one === 'string' || typeof one === 'number')
    )
      return { kind: 'hako', words: words.map(String) }
    this.#complain(`${key}: hako takes the words of a command`, key)
    return undefined
  }

  #probe(value: Value | undefined): Act | undefined {
    if (isMap(value) && value.guest !== undefined) {
      const { guest, file, run, ...others } = value
      const isRun =
        run === undefined || (Array.isArray(run) && run.every((one) => typeof one === 'string') && run.length > 0)
      const isFile = file === undefined || (typeof file === 'string' && file.startsWith('/'))
      if (isRun && isFile && Object.keys(others).length === 0 && (run === undefined || file === undefined)) {
        return {
          kind: 'probe',
          guest,
          ...(typeof file === 'string' ? { file } : {}),
          ...(Array.isArray(run) ? { run: run.map(String) } : {}),
        }
      }
    }
    this.#complain('a probe has a guest, and either a file or a program (run, a list) in it', 'run')
    return undefined
  }

  #ask(value: ValueMap, key: string): Act | undefined {
    const { ask, choices } = value
    const isList = choices === undefined || (Array.isArray(choices) && choices.every((one) => typeof one === 'string'))
    if (typeof ask === 'string' && ask.trim() !== '' && isList)
      return { kind: 'ask', question: ask, ...(Array.isArray(choices) ? { choices: choices.map(String) } : {}) }
    this.#complain('ask is a question, choices a list of answers', key)
    return undefined
  }

  /** What a step calls itself must not be less than what it does. */
  #judgeClass(known: StepClass, act: Act, value: ValueMap): void {
    const changes = (act.kind === 'api' && act.method !== 'GET') || (act.kind === 'probe' && act.run !== undefined)
    if (known === 'read' && changes) this.#complain('a step of class read changes something', 'class')
    const isFinal = act.kind === 'api' && act.method === 'DELETE'
    if (isFinal && known !== 'destroy') this.#complain('a step that deletes lacks its mark: class: destroy', 'class')
    if (known === 'destroy' && value.destroys === undefined)
      this.#complain('a step of class destroy says what: destroys: guest/101', 'class')
    if (known !== 'destroy' && value.destroys !== undefined)
      this.#complain('a step that destroys lacks its mark: class: destroy', 'class')
    if (value.scratch === true && value.undo === undefined)
      this.#complain('what is scratch is undone at the end: undo is missing', 'scratch')
    if (value.makes !== undefined && known !== 'create' && value.makes !== value.destroys)
      this.#complain('a step that makes an object is of class create', 'class')
    if (this.#content.includes('\u0000')) this.#complain('the block holds a NUL')
  }
}
