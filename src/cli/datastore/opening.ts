/** How a command of `hako datastore` gets to its datastore: where it lies, and what opens it. */
import { readFile } from 'node:fs/promises'
import { Fault, isFault, missing } from '#base/fault.ts'
import { type Datastore, openDatastore, type OpenDatastore } from '#datastore/datastore.ts'
import type { Place } from '#datastore/places/place.ts'
import type { SlotSecret } from '#datastore/keys/slot.ts'
import { asFileFault } from '#host/files.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { say } from '../text.ts'
import { deps } from './deps.ts'
import { placeAt } from './reaching.ts'

/** Runs `act` on the datastore in a place, without its keys. */
export async function withDatastore<T>(
  where: string,
  { params }: Pick<Parsed, 'params'>,
  act: (datastore: Datastore) => Promise<T>,
): Promise<T> {
  await using place = await placeAt(where, params)
  return await act(await datastoreIn(place, where))
}

async function datastoreIn(place: Place, where: string): Promise<Datastore> {
  return openDatastore(place, deps).catch((cause: unknown) => {
    if (!isFault(cause, 'missing')) throw cause
    throw missing('datastore', place.label, { cause, remedy: `Make one there: hako datastore init ${where}` })
  })
}

/** As `withDatastore`, with its keys. */
export async function withKeys<T>(
  directory: string,
  parsed: Parsed,
  terminal: Terminal,
  act: (open: OpenDatastore) => Promise<T>,
): Promise<T> {
  return withDatastore(directory, parsed, async (datastore) =>
    act(await datastore.unlock(await secretFrom(parsed.params, terminal))),
  )
}

/** Whether one was named: nobody is asked for what is not needed. */
export function hasKey({ params }: Pick<Parsed, 'params'>): boolean {
  return ['passphrase-file', 'key-file', 'recovery-key-file'].some((name) => params[name] !== undefined)
}

export async function secretFrom(
  params: Readonly<Record<string, string | string[]>>,
  terminal: Terminal,
): Promise<SlotSecret> {
  const { 'passphrase-file': passphrase, 'key-file': key, 'recovery-key-file': recovery } = params
  const given = [passphrase, key, recovery].filter((one) => one !== undefined)
  if (given.length > 1) throw new Fault('invalid', 'name one way to open the datastore, not several')
  if (typeof key === 'string') return { kind: 'key', key: await read(key) }
  if (typeof recovery === 'string') return { kind: 'recovery', text: await firstLine(recovery, terminal) }
  if (typeof passphrase === 'string') return { kind: 'passphrase', passphrase: await firstLine(passphrase, terminal) }
  return { kind: 'passphrase', passphrase: await asked(say(terminal.language, 'askPassphrase'), terminal) }
}

/** @throws Fault `invalid` when nobody is there to ask */
export async function asked(question: string, terminal: Terminal): Promise<string> {
  if (process.stdin.isTTY) return terminal.readSecret(`${question} `)
  throw new Fault('invalid', 'the datastore is locked, and nobody can be asked for its passphrase here', {
    remedy: 'Name a file with --passphrase-file, --key-file or --recovery-key-file.',
  })
}

async function firstLine(path: string, terminal: Terminal): Promise<string> {
  const text = path === '-' ? await terminal.readSecret('') : (await read(path)).toString('utf8')
  return text.split(/\r?\n/, 1)[0] ?? ''
}

async function read(path: string): Promise<Buffer> {
  return readFile(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
}
