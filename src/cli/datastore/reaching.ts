/** Where a datastore lies, as somebody names it: a directory, a bucket of an S3 server, another Hakobune. */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Fault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { FolderPlace } from '#datastore/places/folder-place.ts'
import type { Place } from '#datastore/places/place.ts'
import type { S3Place } from '#datastore/places/s3/place.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { deps } from './deps.ts'
import { reaching } from './place-options.ts'

const secondsPerDay = 24 * 60 * 60
const longestDays = 36_500

/** A mistake is told soon; what was under way for hours gets over most of a minute without a connection. */
const patience = { attemptsAtFirst: 4, attempts: 10 }

type Params = Readonly<Record<string, string | string[]>>

/** @param kind `copy-` for the second of two places */
export async function placeAt(where: string, params: Params, kind: '' | 'copy-' = ''): Promise<Place> {
  const given = (name: string) => {
    const value = params[`${kind}${name}`]
    return typeof value === 'string' ? value : undefined
  }
  if (where.startsWith('s3://')) return s3At(where, given)
  if (where.startsWith('https://')) return httpsAt(where, given)
  // A slip in it would otherwise become a folder of that name.
  if (/^(?:[a-z][a-z0-9+.-]*:\/|s3:|rest:|sftp:)/i.test(where)) {
    throw new Fault('invalid', `'${where}' is no place of a datastore`, {
      remedy:
        'It is a directory, s3://bucket/prefix, or https://host:port/name; a directory of that name is written with ./ in front.',
    })
  }
  const foreign = Object.keys(reaching).find((name) => given(name) !== undefined)
  if (foreign !== undefined) {
    throw new Fault('invalid', `--${kind}${foreign} means nothing for directory '${where}'`)
  }
  return new FolderPlace(resolve(where), systemRandom, { isAlone: true })
}

/** What a datastore has in its folder, and what a file system of its own has there from the start. */
const expected = /^(?:format|reserve|keys|packs|segments|backups|marks|leases|condemned|suspects|tmp|lost\+found)$/

/** Nothing of others is among what is to become a datastore; one that is there is looked at by whoever opens it. @throws Fault `conflict` */
export async function requireFree(place: Place): Promise<void> {
  if (!(place instanceof FolderPlace)) return
  const names: string[] = await readdir(place.label).catch((cause: unknown) => {
    if (codeOf(cause) === 'ENOENT') return []
    throw asFileFault(cause, place.label)
  })
  if (names.includes('format') || names.every((name) => expected.test(name))) return
  throw new Fault('conflict', `directory '${place.label}' is not empty`, {
    remedy: 'Name one that is empty, or not there.',
  })
}

async function s3At(where: string, given: (name: string) => string | undefined): Promise<S3Place> {
  const found = /^s3:\/\/([a-z0-9][a-z0-9._-]{1,62})(?:\/([A-Za-z0-9][A-Za-z0-9._/-]{0,200}?))?\/?$/.exec(where)
  const [, bucket, prefix = ''] = found ?? []
  if (bucket === undefined || /(?:^|\/)\.{0,2}(?:\/|$)/.test(prefix === '' ? 'a' : prefix)) {
    throw new Fault('invalid', `'${where}' is no place in an object store`, {
      remedy: 'It is one such as s3://bucket/prefix.',
    })
  }
  const ca = given('ca-file')
  const { S3Place: Place } = await import('#datastore/places/s3/place.ts')
  return Place.open(
    {
      bucket,
      prefix,
      endpoint: given('endpoint'),
      region: given('region'),
      credentialsFile: given('credentials-file'),
      ca: ca === undefined ? undefined : await pem(ca),
      keptHome: await keptHome(given),
      ...patience,
    },
    deps,
  )
}

/** Where parts of the index stay; nothing when they are not to. */
async function keptHome(given: (name: string) => string | undefined): Promise<string | undefined> {
  const wanted = given('cache-dir')
  if (wanted === 'none') return undefined
  const { cacheHome } = await import('#settings.ts')
  return join(wanted === undefined ? cacheHome() : resolve(wanted), 'segments')
}

async function httpsAt(url: string, given: (name: string) => string | undefined): Promise<Place> {
  const [path, ca] = [given('token-file'), given('ca-file')]
  if (path === undefined) {
    throw new Fault('invalid', `'${url}' asks for a token`, { remedy: 'Name the file it is in: --token-file.' })
  }
  const token = (await secretIn(path)).trim()
  const { HttpsPlace } = await import('#datastore/places/https/place.ts')
  const trust = { ca: ca === undefined ? undefined : await pem(ca), fingerprint: given('fingerprint') }
  return HttpsPlace.open({ url, token, ...trust, keptHome: await keptHome(given) }, deps)
}

/** @throws Fault `denied` when others may read it */
async function secretIn(path: string): Promise<string> {
  try {
    if (((await stat(path)).mode & 0o077) !== 0) {
      throw new Fault('denied', `'${path}' holds a secret, and others may read it`, { remedy: `chmod 600 ${path}` })
    }
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw asFileFault(cause, path)
  }
}

async function pem(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text
  throw new Fault('invalid', `'${path}' holds no certificate in PEM form`)
}

/** `--retain-days`: what a new datastore keeps from being removed, and for how long. */
export async function retainAt(place: Place, days: string | undefined): Promise<void> {
  if (days === undefined) return
  const count = Number(days)
  if (!Number.isInteger(count) || count < 1 || count > longestDays) {
    throw new Fault('invalid', `retain-days: '${days}' is no number of days`, { remedy: `It is 1 to ${longestDays}.` })
  }
  if (!place.retain) {
    throw new Fault('invalid', `nothing in '${place.label}' can be kept from being removed`, {
      remedy: 'That takes a bucket with Object Lock.',
    })
  }
  await place.retain(count * secondsPerDay)
}
