/**
 * Templates of containers somebody offers on the web, from a signed index in the form Proxmox VE's own has: stanzas of
 * `Key: value`, with a detached signature beside it. Without a configured index there are none.
 *
 * Only a text whose signature holds is ever kept or read. The kept one serves a day, and longer while the server does
 * not answer; a server that has just failed is left alone for a minute.
 */
import { stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { MiB } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, invalid, isFault, messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { readIfPresent, writeFileAtomic } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { reachOf } from '#host/web/reach.ts'
import { requireSignature } from '#host/web/signature.ts'
import { fetchSmall } from '#host/web/web.ts'
import type { Settings } from '#settings.ts'
import { complaintAboutFile } from './volume.ts'

export interface Appliance {
  /** Name of its file: `debian-13-standard_13.1-2_amd64.tar.zst`. */
  readonly template: string
  readonly url: string
  readonly sha512: string
  /** What the index says of it, by lower-case key. */
  readonly facts: Readonly<Record<string, string>>
}

interface Needs {
  readonly settings: Pick<Settings, 'stateDir' | 'templateIndex' | 'fetchNetworks'>
  readonly host: Host
  readonly clock: Pick<Clock, 'now'>
  readonly log: Log
}

const mostBytes = 8 * MiB
const mostAppliances = 5_000
const freshMs = 24 * 60 * 60_000
const pauseMs = 60_000
const answerMs = 8_000
/** By URL: until when it is left alone, and why. */
const failures = new Map<string, { readonly untilMs: number; readonly fault: Fault }>()

/** By section and name. @throws Fault `unavailable`, `denied` when there is no index whose signature holds */
export async function appliances(needs: Needs, signal?: AbortSignal): Promise<Appliance[]> {
  const { templateIndex } = needs.settings
  if (!templateIndex) return []
  return parseIndex(await indexText(needs, templateIndex, signal), templateIndex.url)
}

/** @throws Fault `invalid` */
export async function applianceNamed(needs: Needs, template: string, signal?: AbortSignal): Promise<Appliance> {
  const found = (await appliances(needs, signal)).find((one) => one.template === template)
  if (found) return found
  throw invalid({ template: `no such template '${template.slice(0, 255)}'` })
}

type Index = NonNullable<Settings['templateIndex']>

async function indexText(needs: Needs, index: Index, signal: AbortSignal | undefined): Promise<string> {
  const { settings, clock, log } = needs
  const path = join(settings.stateDir, 'template-index')
  const kept = await readIfPresent(path)
  const isFresh = async () => clock.now() - (await stat(path)).mtimeMs < freshMs
  // The first line says of which index it is: another may be configured since.
  const mark = `${index.url}\n`
  const ours = kept?.startsWith(mark) ? kept.slice(mark.length) : undefined
  if (ours !== undefined && (await isFresh())) return ours
  try {
    const text = await fetchIndex(needs, index, signal)
    await writeFileAtomic(path, mark + text)
    return text
  } catch (cause) {
    if (ours === undefined || !isFault(cause)) throw cause
    log.warn('the index of templates is an old one', { cause: messageOf(cause) })
    return ours
  }
}

async function fetchIndex(
  { settings, host, clock }: Needs,
  { url, keyring }: Index,
  signal?: AbortSignal,
): Promise<string> {
  const failed = failures.get(url)
  if (failed && clock.now() < failed.untilMs) throw failed.fault
  try {
    const request = { reach: reachOf(settings.fetchNetworks), answerMs, signal, mayLoseTls: true }
    const plainUrl = url.replace(/\.gz$/, '')
    const sent = await fetchSmall(url, mostBytes, request)
    const text = plainUrl === url ? sent : unpacked(sent)
    const signature = await fetchSmall(`${plainUrl}.asc`, mostBytes, request)
    await requireSignature(host, { text, signature, keyring, directory: settings.stateDir })
    failures.delete(url)
    return text.toString('utf8')
  } catch (fault) {
    if (isFault(fault) && !signal?.aborted) failures.set(url, { untilMs: clock.now() + pauseMs, fault })
    throw fault
  }
}

function unpacked(bytes: Buffer): Buffer {
  try {
    return gunzipSync(bytes, { maxOutputLength: mostBytes })
  } catch (cause) {
    throw new Fault('damaged', `the index of templates cannot be decompressed: ${messageOf(cause)}`, { cause })
  }
}

/** What can be fetched and checked; the rest is passed over. */
export function parseIndex(text: string, indexUrl: string): Appliance[] {
  const found = text.split(/\n\s*\n/).flatMap((stanza): Appliance[] => {
    const facts = factsIn(stanza)
    const { location = '', sha512sum = '' } = facts
    if (location === '' || !URL.canParse(location, indexUrl)) return []
    const { href, pathname } = new URL(location, indexUrl)
    const template = basename(pathname)
    const isSound = /^[0-9a-f]{128}$/i.test(sha512sum) && complaintAboutFile('vztmpl', template) === undefined
    return isSound ? [{ template, url: href, sha512: sha512sum, facts }] : []
  })
  const key = ({ template, facts }: Appliance) => `${facts.section ?? ''} ${template}`
  return found.slice(0, mostAppliances).toSorted((a, b) => (key(a) < key(b) ? -1 : 1))
}

/** A line that begins with a blank goes on with the value above it. */
function factsIn(stanza: string): Record<string, string> {
  const facts: Record<string, string> = {}
  let last: string | undefined
  for (const line of stanza.split('\n')) {
    const [, key, value = ''] = /^([A-Za-z][\w-]{0,40}):\s*(.*)$/.exec(line) ?? []
    if (key !== undefined) facts[(last = key.toLowerCase())] = value.trim().slice(0, 4096)
    else if (last !== undefined && /^\s/.test(line) && (facts[last] ?? '').length < 4096) {
      facts[last] = `${facts[last]}\n${line.trim().replace(/^\.$/, '')}`.slice(0, 4096)
    }
  }
  return facts
}
