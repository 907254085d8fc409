/**
 * A node whose own key is gone gets another one, from whoever has the recovery key: that opens the datastores, lets the
 * new key in, and takes the ways of the ones before away. Nothing that is stored is written anew.
 *
 * The new key is let in everywhere before it takes the place of the one before, so that whatever ends this in between
 * leaves a node that is as it was, or as it is to be.
 */
import { invalid, isFault, messageOf } from '#base/fault.ts'
import { forgetFormerKeys, letIn, nodeKeysTo, opensBy } from '#backup/node-datastore.ts'
import type { Services } from '#services.ts'

type Deps = Pick<Services, 'nodeKeys' | 'backup' | 'storage'>

interface Later {
  readonly storage: string
  readonly reason: string
}

export interface UsedKey {
  /** Of the node's key, new or not. */
  readonly fingerprint: string
  /** Datastores the node opens now. */
  readonly storages: string[]
  /** Those it does not, and why; the same again lets it in. */
  readonly later: Later[]
  /** How many keys the node had before open a datastore no longer. */
  readonly forgotten: number
}

/**
 * @param replaces another key is wanted even if the one of the node is good
 * @throws Fault `invalid` for another key, or one that opens nothing here
 */
export async function useRecoveryKey(
  deps: Deps,
  text: string,
  { replaces }: { readonly replaces: boolean },
): Promise<UsedKey> {
  const { nodeKeys } = deps
  const { isInForce } = await nodeKeys.demandInForce(text)
  const secret = { kind: 'recovery', text } as const
  const found = await onEach(deps, await storagesWithBackups(deps), (datastore) => opensBy(datastore, secret))
  const closed = found.done.flatMap(({ storage, came }) =>
    came ? [] : [{ storage, reason: 'the recovery key does not open it' }],
  )
  const open = found.done.flatMap(({ storage, came }) => (came ? [storage] : []))
  if (!isInForce && open.length === 0) {
    throw invalid(
      { key: 'it opens no datastore of this node' },
      {
        remedy: 'Add the storage the backups are on first, or print a key for a new node: `hako recovery-key create`.',
      },
    )
  }
  await nodeKeys.adopt(text)
  const { key, isFresh } = await nodeKeys.ownOrFresh({ replaces })
  const own = { kind: 'key', key } as const
  const entered = await onEach(deps, open, (datastore, needs) => letIn(datastore, secret, own, needs))
  if (isFresh) await nodeKeys.keepOwn(key)
  const settled = await onEach(deps, namesOf(entered), forgetFormerKeys)
  return {
    fingerprint: (await nodeKeys.ownFingerprint()) ?? '',
    storages: namesOf(settled),
    later: [...closed, ...found.later, ...entered.later, ...settled.later],
    forgotten: settled.done.reduce((sum, { came }) => sum + came, 0),
  }
}

interface Each<T> {
  readonly done: readonly { readonly storage: string; readonly came: T }[]
  readonly later: readonly Later[]
}

/** What cannot be reached keeps nothing from the others; what holds no datastore is passed over. */
async function onEach<T>(
  { backup }: Deps,
  storages: readonly string[],
  act: Parameters<typeof backup.onDatastore<T>>[1],
): Promise<Each<T>> {
  const done: { storage: string; came: T }[] = []
  const later: Later[] = []
  for (const storage of storages) {
    try {
      const opened = await backup.onDatastore(storage, act)
      if (opened) done.push({ storage, came: opened.came })
    } catch (fault) {
      if (!isFault(fault)) throw fault
      later.push({ storage, reason: messageOf(fault) })
    }
  }
  return { done, later }
}

function namesOf({ done }: Each<unknown>): string[] {
  return done.map(({ storage }) => storage)
}

export interface OpenedByNode {
  readonly storage: string
  readonly opens: boolean
  /** Of the key that new things in it are sealed with: each key that is taken away makes it another. */
  readonly 'key-number'?: number
  readonly reason?: string
}

/** What the node opens by its own key. Makes none. */
export async function openedByNode(deps: Deps): Promise<{ fingerprint?: string; storages: OpenedByNode[] }> {
  const fingerprint = await deps.nodeKeys.ownFingerprint()
  const storages: OpenedByNode[] = []
  for (const storage of await storagesWithBackups(deps)) {
    if (fingerprint === undefined) {
      storages.push({ storage, opens: false, reason: 'the node has no key of its own' })
      continue
    }
    try {
      const opened = await deps.backup.onDatastore(storage, nodeKeysTo)
      if (opened) storages.push({ storage, opens: true, 'key-number': opened.came.keyring.epoch })
    } catch (fault) {
      if (!isFault(fault)) throw fault
      storages.push({ storage, opens: false, reason: messageOf(fault) })
    }
  }
  return fingerprint === undefined ? { storages } : { fingerprint, storages }
}

async function storagesWithBackups({ storage }: Deps): Promise<string[]> {
  return (await storage.list()).flatMap(({ name, content }) => (content.includes('backup') ? [name] : []))
}
