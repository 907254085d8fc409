/** Operations of any kind, by name: how a task's process finds what it was told to do. */
import { Fault } from '#base/fault.ts'
import type { Operation } from './operation.ts'

/** Parameters and services differ from one to the next; only `perform` hands them over. */
export type AnyOperation = Operation<never, never>
export type Operations = ReadonlyMap<string, AnyOperation>

/** @throws Error when two have the same name. */
export function operationsByName(operations: readonly AnyOperation[]): Operations {
  const byName = new Map(operations.map((operation) => [operation.name, operation]))
  if (byName.size < operations.length) throw new Error('two operations have the same name')
  return byName
}

/** @throws Fault `failed` when nothing has that name, for instance after a change of version. */
export function operationNamed(operations: Operations, name: string): AnyOperation {
  const found = operations.get(name)
  if (!found) throw new Fault('failed', `this version knows no operation '${name}'`)
  return found
}
