/** What `hako datastore` does to keep a datastore well: space given back, copies, repairs, the canary. */
import { Fault } from '#base/fault.ts'
import { openDatastore } from '#datastore/datastore.ts'
import { tryCanary } from '#datastore/locks/canary.ts'
import { collectGarbage } from '#datastore/collect/garbage.ts'
import { printSecond } from '#datastore/places/place.ts'
import { mendOpening } from '#datastore/copy/opening.ts'
import { refetch } from '#datastore/copy/refetch.ts'
import { repairIndex } from '#datastore/tidy/repair.ts'
import { syncDatastore } from '#datastore/copy/sync.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { say } from '../text.ts'
import { deps } from './deps.ts'
import { hasKey, secretFrom, withDatastore, withKeys } from './opening.ts'
import { placeAt, requireFree, retainAt } from './reaching.ts'
import { rateOf, shown, textOf } from './at-work.ts'

export async function gc(directory: string, parsed: Parsed, terminal: Terminal) {
  const text = textOf(parsed.params.grace) ?? '0'
  const grace = Number(text)
  if (!Number.isInteger(grace) || grace < 0) throw new Fault('invalid', `grace: '${text}' is no number of seconds`)
  return withKeys(directory, parsed, terminal, async (open) => {
    if (parsed.params['dry-run'] === '1') {
      const { previewGarbage } = await import('#datastore/collect/preview.ts')
      const options = { signal: terminal.signal, onProgress: shown(terminal, parsed) }
      const { freeableBytes, ...found } = await previewGarbage(open, options)
      return { ...found, freeable: freeableBytes }
    }
    const { freedBytes, lockedUntil, ...counts } = await collectGarbage(open, {
      graceSeconds: grace,
      signal: terminal.signal,
      onProgress: shown(terminal, parsed),
    })
    await open.datastore.removeOldKeyFiles(open.unlocked.file.generation)
    const until = lockedUntil === undefined ? {} : { lockedUntil: printSecond(lockedUntil) }
    return { ...counts, ...until, freed: freedBytes }
  })
}

/** Makes, or brings up to date, a copy in another place. */
export async function sync(from: string, to: string, parsed: Parsed, terminal: Terminal) {
  const { params } = parsed
  return withDatastore(from, parsed, async (source) => {
    await using place = await placeAt(to, params, 'copy-')
    await requireFree(place)
    await place.prepare()
    await retainAt(place, textOf(params['retain-days']))
    const namespace = textOf(params.namespace)
    const isOpened = namespace !== undefined && hasKey(parsed)
    if (namespace !== undefined && !isOpened) terminal.show(say(terminal.language, 'copiesAllPacks'))
    return await syncDatastore(source, place, deps, {
      namespace,
      open: isOpened ? await source.unlock(await secretFrom(params, terminal)) : undefined,
      removesVanished: params['remove-vanished'] === '1',
      rateBytesPerSecond: rateOf(params),
      signal: terminal.signal,
      onProgress: shown(terminal, parsed),
    })
  })
}

export async function repair(directory: string, parsed: Parsed, terminal: Terminal) {
  const from = textOf(parsed.params.from)
  if (from !== undefined) return repairFrom(directory, from, parsed, terminal)
  return withKeys(directory, parsed, terminal, async (open) => {
    shown(terminal, parsed)({ phase: 'packs' })
    const rows = await repairIndex(open, terminal.signal)
    return { rows, isWhole: rows.damaged.length === 0 }
  })
}

/** What is damaged or lost, from a copy; first of all what opens it. Needs no key, but for what is locked or all gone. */
async function repairFrom(directory: string, from: string, parsed: Parsed, terminal: Terminal) {
  const { params } = parsed
  await using place = await placeAt(directory, params)
  await using copyPlace = await placeAt(from, params, 'copy-')
  const copy = await openDatastore(copyPlace, deps)
  const secret = hasKey(parsed) ? await secretFrom(params, terminal) : undefined
  const opening = await mendOpening(place, copy, { deps, secret })
  const datastore = await openDatastore(place, deps)
  const keys = secret && (await datastore.keys(secret))
  const {
    fetched,
    missing: lost,
    locked,
  } = await refetch(datastore, copy, {
    keys,
    signal: terminal.signal,
    onProgress: shown(terminal, parsed),
  })
  return {
    rows: { fetched: [...opening, ...fetched], missing: lost, locked },
    isWhole: lost.length === 0 && locked.length === 0,
  }
}

/** Whether our own credentials could destroy what lies there. */
export async function canary(directory: string, parsed: Parsed) {
  return withDatastore(directory, parsed, async (datastore) => {
    const { attempts, isSafe } = await tryCanary(datastore)
    return { rows: attempts, isProven: isSafe }
  })
}
