/**
 * Typed documents over the store: `storage/<name>`, `access/users/<user>`, each with a schema.
 *
 * What is read is checked, so that a document written by another version or damaged on disk is a fault that
 * names the key, not a wrong value somewhere else. What is written is checked too, so that it can be read back.
 * A change reads, computes and writes under a guard, and starts over when somebody was faster; `change` may
 * therefore run several times and must do nothing but compute.
 */
import { Fault, isFault, missing } from '#base/fault.ts'
import { checkValue, type Errors } from '#base/schema/check.ts'
import type { Schema } from '#base/schema/schema.ts'
import type { Entry, Guard, Json, Store, Write } from './store.ts'

export interface DocumentKind<T> {
  /** In faults: `storage 'fast' does not exist`. */
  readonly noun: string
  /** Of the keys, with its last slash: `storage/`. */
  readonly prefix: string
  readonly schema: Schema<T>
}

export interface Document<T> {
  /** The key without the prefix. */
  readonly name: string
  readonly value: T
  readonly revision: number
}

/** Somebody faster comes along once or twice, not this often. */
const attempts = 50

export class Documents<T> {
  readonly #store: Store
  readonly #kind: DocumentKind<T>

  constructor(store: Store, kind: DocumentKind<T>) {
    this.#store = store
    this.#kind = kind
  }

  keyOf(name: string): string {
    return this.#kind.prefix + name
  }

  /** @throws Fault `damaged` when what is kept does not have the kind's shape. */
  async find(name: string): Promise<Document<T> | undefined> {
    const entry = await this.#store.get(this.keyOf(name))
    return entry && this.#read(entry)
  }

  /** @throws Fault `missing`, worded `<noun> '<name>' does not exist`. */
  async get(name: string): Promise<Document<T>> {
    const found = await this.find(name)
    if (!found) throw missing(this.#kind.noun, name)
    return found
  }

  /** All of them, sorted by name. */
  async list(): Promise<Document<T>[]> {
    return (await this.#store.list(this.#kind.prefix)).map((entry) => this.#read(entry))
  }

  /** @throws Fault `conflict`, worded `<noun> '<name>' already exists`. */
  async create(name: string, value: T): Promise<void> {
    try {
      await this.#store.transact([{ key: this.keyOf(name), revision: 0 }], [this.write(name, value)])
    } catch (error) {
      throw isFault(error, 'conflict') ? new Fault('conflict', `${this.#kind.noun} '${name}' already exists`) : error
    }
  }

  /** Writes whatever was there. */
  async put(name: string, value: T): Promise<void> {
    await this.#store.transact([], [this.write(name, value)])
  }

  /** Changes a document that exists; returns what was written. @throws Fault `missing`. */
  async update(name: string, change: (value: T) => T): Promise<T> {
    return this.#untilWritten(name, (found) => {
      if (!found) throw missing(this.#kind.noun, name)
      return change(found.value)
    })
  }

  /** As `update`, for a document that may be absent before (`undefined` comes in) and after (`undefined` goes out). */
  async alter(name: string, change: (value: T | undefined) => T | undefined): Promise<T | undefined> {
    return this.#untilWritten(name, (found) => change(found?.value))
  }

  /** @throws Fault `missing` when there is none. */
  async delete(name: string): Promise<void> {
    await this.#untilWritten<undefined>(name, (found) => {
      if (!found) throw missing(this.#kind.noun, name)
      return undefined
    })
  }

  /** For a transaction over several documents: the document must still be as it was read. */
  guard({ name, revision }: Pick<Document<T>, 'name' | 'revision'>): Guard {
    return { key: this.keyOf(name), revision }
  }

  /** For a transaction over several documents. @throws Error when the value does not have the kind's shape: a bug. */
  write(name: string, value: T): Write {
    const complaint = this.#complaint(value)
    if (complaint !== undefined) throw new Error(`'${this.keyOf(name)}' was about to be written wrong: ${complaint}`)
    const json: Json = JSON.parse(JSON.stringify(value))
    return { put: this.keyOf(name), value: json }
  }

  #read({ key, value, revision }: Entry): Document<T> {
    const complaint = this.#complaint(value)
    if (complaint !== undefined) throw new Fault('damaged', `'${key}' in the store is damaged: ${complaint}`)
    // The schema was just found to hold, and `T` is by definition what it accepts.
    return { name: key.slice(this.#kind.prefix.length), value: value as T, revision }
  }

  #complaint(value: unknown): string | undefined {
    const errors: Errors = {}
    checkValue(this.#kind.schema, value, this.#kind.noun, errors)
    return errors[this.#kind.noun]
  }

  async #untilWritten<R extends T | undefined>(
    name: string,
    change: (found: Document<T> | undefined) => R,
  ): Promise<R> {
    let lost: unknown
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      const found = await this.find(name)
      const changed = change(found)
      const guard = { key: this.keyOf(name), revision: found?.revision ?? 0 }
      const write = changed === undefined ? { delete: guard.key } : this.write(name, changed)
      try {
        await this.#store.transact([guard], [write])
        return changed
      } catch (error) {
        // Only a lost race is run again; a conflict that `change` itself finds is its answer.
        if (!isFault(error, 'conflict')) throw error
        lost = error
      }
    }
    throw new Fault('conflict', `${this.#kind.noun} '${name}' is being changed by others all the time`, {
      cause: lost,
      remedy: 'Try again.',
    })
  }
}
