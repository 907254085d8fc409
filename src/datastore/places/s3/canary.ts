/**
 * A canary in a locked bucket: an object that is kept as backups are, and that our own credentials try to do away with, as
 * somebody would who has stolen them. Every attempt must fail, and the object be what it was.
 */
import { randomBytes } from 'node:crypto'
import { seconds } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { DatastoreDeps } from '../../deps.ts'
import type { CanaryAttempt } from '../place.ts'
import type { S3Reach } from './client.ts'
import { contentOf } from './content.ts'
import type { S3Objects } from './objects.ts'

const contentBytes = 64
const kept = 'canary/'

export interface CanaryCage extends S3Reach {
  readonly objects: S3Objects
  readonly bucket: string
  readonly deps: DatastoreDeps
  /** Seconds since 1970. */
  readonly until: number
}

export async function sendCanary(cage: CanaryCage): Promise<CanaryAttempt[]> {
  const { objects, client, library, bucket, deps, until } = cage
  for await (const { name } of objects.list(kept)) await objects.remove(name).catch(notYet)
  const name = `${kept}${deps.random.uuid()}`
  const content = randomBytes(contentBytes)
  await objects.put(name, contentOf(content), { onlyNew: true, until })
  const version = await objects.current(name)
  const which = { Bucket: bucket, Key: objects.keyOf(name), VersionId: version?.id }
  // As far from now as from the end: before now is refused for being that, and a server's clock is not ours.
  const sooner = new Date(((seconds(deps.clock) + until) / 2) * 1000)
  const isRefused = (act: () => Promise<unknown>) =>
    objects.ask(name, act).then(
      () => false,
      (fault: unknown) => {
        if (isFault(fault, 'denied')) return true
        throw fault
      },
    )
  const attempts: CanaryAttempt[] = []
  const shortened = new library.PutObjectRetentionCommand({
    ...which,
    Retention: { Mode: 'COMPLIANCE', RetainUntilDate: sooner },
  })
  attempts.push({ attempt: 'shorten', refused: await isRefused(() => client.send(shortened)) })
  const bypassing = new library.DeleteObjectCommand({ ...which, BypassGovernanceRetention: true })
  attempts.push({ attempt: 'bypass', refused: await isRefused(() => client.send(bypassing)) })
  const deleting = new library.DeleteObjectCommand(which)
  attempts.push({ attempt: 'delete', refused: await isRefused(() => client.send(deleting)) })
  // Both leave versions of their own; what counts is that the first one is there, and found.
  await objects.put(name, contentOf(Buffer.alloc(contentBytes)), { onlyNew: false }).catch(notYet)
  attempts.push({ attempt: 'overwrite', refused: await isThere(cage, which, content) })
  await isRefused(() => client.send(new library.DeleteObjectCommand({ Bucket: bucket, Key: which.Key })))
  attempts.push({ attempt: 'hide', refused: await isThere(cage, which, content) })
  return attempts
}

/** One that is still locked goes another day. */
function notYet(fault: unknown): void {
  if (!isFault(fault, 'denied')) throw fault
}

async function isThere(
  { objects, client, library }: CanaryCage,
  which: { readonly Bucket: string; readonly Key: string; readonly VersionId: string | undefined },
  content: Buffer,
): Promise<boolean> {
  try {
    const reply = await objects.ask(which.Key, () => client.send(new library.GetObjectCommand(which)))
    return content.equals((await reply.Body?.transformToByteArray()) ?? Buffer.alloc(0))
  } catch (fault) {
    if (isFault(fault, 'missing')) return false
    throw fault
  }
}
