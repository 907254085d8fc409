/** `hako datastore init` and `hako datastore key …`: the ways to the keys. */
import { writeFile } from 'node:fs/promises'
import { parseSize } from '#base/bytes.ts'
import { seconds } from '#base/clock.ts'
import { Fault, isFault, wholeMessageOf } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { createDatastore } from '#datastore/create-datastore.ts'
import { type Datastore } from '#datastore/datastore.ts'
import {
  type KeyFile,
  type Unlocked,
  withConfirmed,
  withoutSlot,
  withSecrets,
  withSlot,
  withWriter,
} from '#datastore/keys/key-file.ts'
import { rotated } from '#datastore/keys/keyring.ts'
import { printSecond } from '#datastore/places/place.ts'
import { printRecoveryKey, type PublicHalf, type SlotSecret } from '#datastore/keys/slot.ts'
import { privateOf, publicOf } from '#datastore/keys/x25519.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { say } from '../text.ts'
import { deps } from './deps.ts'
import { asked, secretFrom, withDatastore } from './opening.ts'
import { placeAt, requireFree, retainAt } from './reaching.ts'

const keyTries = 3

/** Makes a datastore, prints its recovery key, and has it confirmed where somebody is there to do so. */
export async function init(where: string, parsed: Parsed, terminal: Terminal): Promise<void> {
  const { params } = parsed
  await using place = await placeAt(where, params)
  await requireFree(place)
  const secret = await newSecret(params, terminal)
  const text = printRecoveryKey(Buffer.from(systemRandom.bytes(32)))
  const created = seconds(deps.clock)
  const ways = [
    { secret, created, confirmed: true },
    { secret: { kind: 'recovery', text }, created, confirmed: false } as const,
  ]
  const size = params['chunk-size']
  const days = params['retain-days']
  await place.prepare()
  await retainAt(place, typeof days === 'string' ? days : undefined)
  await createDatastore(place, deps, { ways, ...(typeof size === 'string' && { chunkBytes: parseSize(size) }) })
  terminal.out(text)
  terminal.show(say(terminal.language, 'recoveryKeyIs', place.label))
  if (process.stdin.isTTY) await confirmTyped(where, parsed, terminal)
}

/** A slip while 56 letters are typed is an everyday thing. */
async function confirmTyped(where: string, parsed: Parsed, terminal: Terminal): Promise<void> {
  for (let left = keyTries; ; left -= 1) {
    try {
      await confirm(where, parsed, { kind: 'recovery', text: await askedKey(terminal) }, terminal)
      return
    } catch (fault) {
      if (!isFault(fault, 'invalid') && !isFault(fault, 'denied')) throw fault
      const text = wholeMessageOf(fault)
      const remedy = `The datastore is there; show it later: hako datastore key confirm ${where}`
      if (left === 1) throw new Fault(fault.kind, text, { cause: fault, remedy })
      terminal.show(text)
    }
  }
}

async function askedKey(terminal: Terminal): Promise<string> {
  return asked(say(terminal.language, 'askRecoveryKey'), terminal)
}

/** Of a new datastore, or a new way: a passphrase is asked for twice. */
async function newSecret(params: Readonly<Record<string, string | string[]>>, terminal: Terminal): Promise<SlotSecret> {
  const secret = await secretFrom(params, terminal)
  if (secret.kind !== 'passphrase') return secret
  if (secret.passphrase.length < 8) throw new Fault('invalid', 'the passphrase has fewer than 8 characters')
  const isTyped = params['passphrase-file'] === undefined
  if (isTyped && (await asked(say(terminal.language, 'askAgain'), terminal)) !== secret.passphrase) {
    throw new Fault('invalid', 'the two passphrases differ')
  }
  return secret
}

/** The owner shows that they have the recovery key: only then backups are taken. */
async function confirm(where: string, parsed: Parsed, secret: SlotSecret, terminal: Terminal): Promise<void> {
  await withDatastore(where, parsed, async (datastore) => {
    const unlocked = await datastore.keys(secret)
    if (unlocked.slot.kind !== 'recovery') throw new Fault('invalid', 'only a recovery key is confirmed')
    if (!unlocked.slot.confirmed) await put(datastore, withConfirmed(systemRandom, unlocked), terminal)
    terminal.show(say(terminal.language, 'recoveryKeyConfirmed'))
  })
}

export async function confirmCommand(where: string, parsed: Parsed, terminal: Terminal): Promise<void> {
  const { params } = parsed
  const given = params['recovery-key-file'] !== undefined
  const secret: SlotSecret = given
    ? await secretFrom(params, terminal)
    : { kind: 'recovery', text: await askedKey(terminal) }
  await confirm(where, parsed, secret, terminal)
}

export interface KeyRow {
  readonly id: string
  readonly kind: string
  /** `all`, or to add. */
  readonly may: string
  readonly created: number
  readonly confirmed: boolean
  readonly comment: string
}

/** Needs no key itself. */
export async function keyRows(directory: string, parsed: Parsed): Promise<KeyRow[]> {
  return withDatastore(directory, parsed, async (datastore) =>
    (await datastore.keyFile()).slots.map(({ id, kind, role, namespace, created, confirmed, comment }) => ({
      id,
      kind,
      may: role === undefined ? 'all' : namespace === undefined || namespace === '' ? 'add' : `add to ${namespace}`,
      created,
      confirmed,
      comment,
    })),
  )
}

/** A further passphrase, key file or recovery key. The new one is given by `--new-passphrase-file` and so on. */
export async function addKey(directory: string, parsed: Parsed, terminal: Terminal): Promise<void> {
  const { params } = parsed
  const comment = typeof params.comment === 'string' ? params.comment : ''
  await changed(directory, parsed, terminal, async (unlocked) => {
    if (params['write-only'] === '1') {
      const own = typeof params['public-key'] === 'string' ? publicKeyIn(params['public-key']) : undefined
      const secret = own ?? (await newSecret(renamed(params), terminal))
      const way = { secret, comment, confirmed: true, created: seconds(deps.clock) }
      return withWriter(systemRandom, unlocked, way, typeof params.namespace === 'string' ? params.namespace : '')
    }
    const isRecovery = params.recovery === '1'
    const text = isRecovery ? printRecoveryKey(Buffer.from(systemRandom.bytes(32))) : ''
    const secret: SlotSecret = isRecovery ? { kind: 'recovery', text } : await newSecret(renamed(params), terminal)
    const way = { secret, comment, confirmed: !isRecovery, created: seconds(deps.clock) }
    const file = await withSlot(systemRandom, unlocked, way)
    if (isRecovery) {
      terminal.out(text)
      terminal.show(say(terminal.language, 'recoveryKeyIs', directory))
    }
    return file
  })
}

function publicKeyIn(text: string): PublicHalf {
  const key = Buffer.from(text, 'base64')
  if (key.length === 32 && key.toString('base64') === text) return { kind: 'key', public: key }
  throw new Fault('invalid', `public-key: '${text}' is no key`, {
    remedy: 'It is what hako datastore key make prints.',
  })
}

/** A key file for a host, and on the screen the half of it others may know. */
export async function makeKey(path: string, terminal: Terminal): Promise<void> {
  const key = Buffer.from(systemRandom.bytes(32))
  await writeFile(path, key, { flag: 'wx', mode: 0o600 }).catch((cause: unknown) => {
    if (codeOf(cause) === 'EEXIST')
      throw new Fault('conflict', `'${path}' is there already`, { remedy: 'Name a file that is not, or remove it.' })
    throw asFileFault(cause, path)
  })
  terminal.out(publicOf(privateOf(key)).toString('base64'))
}

/** `--new-key-file` is to the new way what `--key-file` is to the one that is there. */
function renamed(params: Parsed['params']): Parsed['params'] {
  const isNew = ([name]: readonly [string, unknown]) => name.startsWith('new-')
  return Object.fromEntries(
    Object.entries(params)
      .filter(isNew)
      .map(([name, value]) => [name.slice('new-'.length), value]),
  )
}

/** Who had it reads nothing that is sealed from now on; what they read or kept before is theirs. */
export async function removeKey(directory: string, id: string, parsed: Parsed, terminal: Terminal): Promise<void> {
  await changed(directory, parsed, terminal, async (unlocked) =>
    withoutSlot(systemRandom, unlocked, id, rotated(unlocked.keyring.secrets, systemRandom)),
  )
}

/** What is sealed from now on has a new key. */
export async function rotateKeys(directory: string, parsed: Parsed, terminal: Terminal): Promise<void> {
  await changed(directory, parsed, terminal, async (unlocked) =>
    withSecrets(systemRandom, unlocked, rotated(unlocked.keyring.secrets, systemRandom)),
  )
}

async function changed(
  directory: string,
  parsed: Parsed,
  terminal: Terminal,
  change: (unlocked: Unlocked) => Promise<KeyFile>,
): Promise<void> {
  await withDatastore(directory, parsed, async (datastore) => {
    const unlocked = await datastore.keys(await secretFrom(parsed.params, terminal))
    await put(datastore, await change(unlocked), terminal)
  })
}

async function put(datastore: Datastore, file: KeyFile, terminal: Terminal): Promise<void> {
  await datastore.putKeyFile(file)
  const until = await datastore.removeOldKeyFiles(file.generation)
  if (until !== undefined) terminal.show(say(terminal.language, 'oldKeysStay', printSecond(until)))
}
