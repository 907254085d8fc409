/** Secrets of a plan come from a file or the environment: a value on the command line is there for everybody to read. */
import { open } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { asFileFault } from '#host/files.ts'
import type { Plan } from '#plans/plan.ts'
import { givenValues } from '#plans/variable.ts'

export interface Given {
  readonly values: Record<string, string>
  readonly secrets: Record<string, string>
}

/** @param pairs `name=value`, of a secret `name=file:PATH` or `name=env:NAME` @throws Fault `invalid`, `missing` */
export async function givenSecrets(
  { settings }: Plan,
  pairs: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<Given> {
  const [values, secrets]: [Record<string, string>, Record<string, string>] = [{}, {}]
  for (const [name, text] of Object.entries(givenValues(pairs))) {
    const isSecret = settings.variables.some((one) => one.name === name && one.type === 'secret')
    if (isSecret) secrets[name] = await secretAt(name, text, env)
    else values[name] = text
  }
  return { values, secrets }
}

async function secretAt(
  name: string,
  reference: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<string> {
  const [, kind = '', place = ''] = /^(file|env):(.+)$/s.exec(reference) ?? []
  const value = kind === 'file' ? await firstLine(place) : kind === 'env' ? env[place] : undefined
  if (kind === '') {
    throw new Fault('invalid', `'${name}' is a secret: it is named, not given`, {
      remedy: `Give --var ${name}=file:PATH or --var ${name}=env:NAME.`,
    })
  }
  if (value === undefined || value === '') throw new Fault('missing', `the secret '${name}' is not at ${kind}:${place}`)
  return value
}

async function firstLine(path: string): Promise<string> {
  const file = await open(path, 'r').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(limits.plans.valueBytes), 0, limits.plans.valueBytes)
    return buffer.toString('utf8', 0, bytesRead).split(/\r?\n/)[0] ?? ''
  } finally {
    await file.close()
  }
}
