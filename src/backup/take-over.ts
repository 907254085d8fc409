/**
 * Puts an encrypted datastore in the place of one of the first format. It is filled beside it, and changes places with it
 * once everything is taken over: until then the storage says what it has always said.
 */
import { existsSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { asFileFault, syncDirectory } from '#host/files.ts'
import { isOfFirstFormat } from './first-format/found.ts'

/** Where the encrypted one is filled. */
export function freshPlaceOf(path: string): string {
  return `${path}-new`
}

/** Where the old one is afterwards. */
export function firstPlaceOf(path: string): string {
  return `${path}-first`
}

export async function changePlaces(path: string): Promise<void> {
  await moved(path, firstPlaceOf(path))
  await moved(freshPlaceOf(path), path)
}

/** Ends what was cut off between the two moves. @returns whether there is a datastore in the place now */
export async function isSettled(path: string): Promise<boolean> {
  const isBetween =
    !existsSync(path) && existsSync(join(freshPlaceOf(path), 'format')) && (await isOfFirstFormat(firstPlaceOf(path)))
  if (isBetween) await moved(freshPlaceOf(path), path)
  return isBetween
}

async function moved(from: string, to: string): Promise<void> {
  try {
    await rename(from, to)
    await syncDirectory(dirname(to))
  } catch (cause) {
    throw asFileFault(cause, to)
  }
}
