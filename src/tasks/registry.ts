/** Operations of any kind, by name: how a task's process finds what it was told to do. */
import { Fault } from '#base/fault.ts'
import type { Operation } from './operation.ts'

/** Parameters and services differ from one to the next; only `perform` hands them over. */
export type AnyOperation = Operation<never, never>

/** How each is loaded, by its name: who needs one of them does not wait for the others. */
export type Operations = ReadonlyMap<string, () => Promise<AnyOperation>>

export function operationsIn(table: Readonly<Record<string, () => Promise<AnyOperation>>>): Operations {
  return new Map(Object.entries(table))
}

/** @throws Fault `failed` when nothing has that name, for instance after a change of version. */
export async function operationNamed(operations: Operations, name: string): Promise<AnyOperation> {
  const load = operations.get(name)
  if (!load) throw new Fault('failed', `this version knows no operation '${name}'`)
  return load()
}
