/**
 * Tells a program elsewhere how a backup job went: one JSON text by POST to an address of the node owner's choice.
 *
 * The address is judged as every other the node is made to ask (`host/web/reach.ts`), certificates are verified, and nothing is
 * followed. What may pass is tried again, a bounded number of times: the job ends all the same.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { Clock } from '#base/clock.ts'
import { Fault, invalid, isFault, messageOf } from '#base/fault.ts'
import type { Webhook } from '#cluster/backup-options.ts'
import { asFileFault } from '#host/files.ts'
import { reachOf } from '#host/web/reach.ts'
import { trusted } from '#host/web/trusted.ts'
import { postToWeb, webUrl, withoutSecrets } from '#host/web/web.ts'
import { besides, type GuestOutcome, hasAlarm, hasHint, type JobOutcome } from './job-outcome.ts'

export interface WebhookNeeds {
  readonly settings: { readonly fetchNetworks?: readonly string[]; readonly caFile?: string }
  readonly clock: Clock
  readonly signal?: AbortSignal | undefined
}

const answerMs = 10_000
/** Between one try and the next. */
const pausesMs = [5_000, 20_000]
const secretMaximumBytes = 4_096
const guestsMaximum = 1_000
const reasonLength = 500
/** Of one guest. */
const alarmsMaximum = 10
/** Those that say how long a text is, whose it is, or what comes next. */
const notForSecrets =
  /^(?:host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|proxy-.*|keep-alive)$/i

/** @throws Fault `invalid` naming the field */
export function requireWebhook({ url, header = 'Authorization', secretFile }: Webhook): void {
  const { protocol, username, password } = asWebhook(url)
  if (username !== '' || password !== '') throw invalid({ webhook: 'name a file with the secret, and none in the URL' })
  if (notForSecrets.test(header)) throw invalid({ 'webhook-header': `'${header}' is no header for a secret` })
  if (secretFile !== undefined && protocol !== 'https:') {
    throw invalid({ 'webhook-secret-file': 'a secret goes to an address with https: alone' })
  }
}

function asWebhook(url: string): URL {
  try {
    return webUrl(url)
  } catch (cause) {
    throw invalid({ webhook: 'give the URL of a web server' }, { cause })
  }
}

/** Where it goes, for people. */
export function shownWebhook({ url }: Webhook): string {
  return withoutSecrets(webUrl(url))
}

/** @throws Fault `failed` for an answer other than 2xx, `unavailable`, `timeout`, `denied`, `aborted` */
export async function tellWebhook(webhook: Webhook, outcome: JobOutcome, needs: WebhookNeeds): Promise<void> {
  const { clock, signal } = needs
  for (const pauseMs of [...pausesMs, undefined]) {
    try {
      return await tellOnce(webhook, outcome, needs)
    } catch (fault) {
      if (pauseMs === undefined || !isFault(fault) || !mayPass(fault) || signal?.aborted) throw fault
      await clock.sleep(pauseMs, signal)
    }
  }
}

/** One try. @throws as `tellWebhook` */
export async function tellOnce(
  webhook: Webhook,
  outcome: JobOutcome,
  { settings, signal }: WebhookNeeds,
): Promise<void> {
  const { url, header = 'Authorization', secretFile } = webhook
  const secret = secretFile === undefined ? {} : { [header]: await secretIn(secretFile) }
  const status = await postToWeb(url, {
    reach: reachOf(settings.fetchNetworks),
    content: JSON.stringify(textOf(outcome)),
    headers: { 'Content-Type': 'application/json', ...secret },
    answerMs,
    authorities: await trusted(settings.caFile),
    signal,
  })
  if (status >= 200 && status < 300) return
  const isBusy = status === 429 || status >= 500
  throw new Fault(isBusy ? 'unavailable' : 'failed', `'${shownWebhook(webhook)}' answers ${status}`)
}

const mayPass = (fault: Fault) => fault.kind === 'unavailable' || fault.kind === 'timeout'

function textOf(job: JobOutcome) {
  const { event = 'backup', node, upid, job: id, storage, startedMs, endedMs, isFailed, reason, guests } = job
  const outcome = isFailed ? 'failed' : 'successful'
  // Those somebody has to look at first: of very many not all are told.
  const sorted = guests.toSorted((a, b) => rankOf(a) - rankOf(b))
  const failed = guests.filter((guest) => guest.reason !== undefined).length
  const counted = guests.length === 0 ? '' : ` (${guests.length - failed} of ${guests.length} guests)`
  return {
    event,
    text: `${event} on ${node}${id === undefined ? '' : `, job ${id}`}: ${outcome}${besides(guests)}${counted}`,
    outcome,
    node,
    ...(id === undefined ? {} : { job: id }),
    upid,
    storage,
    started: new Date(startedMs).toISOString(),
    ended: new Date(endedMs).toISOString(),
    ...(reason === undefined ? {} : { reason: reason.slice(0, reasonLength) }),
    alarms: guests.filter(hasAlarm).length,
    hints: guests.filter(hasHint).length,
    guests: sorted.slice(0, guestsMaximum).map(({ vmid, volid, reason: why, alarms = [], hint, seconds }) => ({
      vmid,
      outcome: why === undefined ? 'successful' : 'failed',
      ...(volid === undefined ? {} : { volid }),
      ...(why === undefined ? {} : { reason: why.slice(0, reasonLength) }),
      ...(alarms.length === 0
        ? {}
        : { alarms: alarms.slice(0, alarmsMaximum).map((text) => text.slice(0, reasonLength)) }),
      ...(hint === undefined ? {} : { hint: hint.slice(0, reasonLength) }),
      seconds: Math.round(seconds),
    })),
    more: Math.max(0, guests.length - guestsMaximum),
  }
}

function rankOf(guest: GuestOutcome): number {
  return [guest.reason !== undefined, hasAlarm(guest), hasHint(guest), true].indexOf(true)
}

/** One line in a file that is root's alone. @throws Fault `denied`, `missing`, `invalid` */
async function secretIn(path: string): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const { uid, mode, size } = await file.stat()
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw new Fault('invalid', `'${path}' is no file`)
    if (uid !== 0 || (mode & 0o077) !== 0) {
      throw new Fault('denied', `others than root can read or change '${path}'`, { remedy: `chmod 600 '${path}'` })
    }
    if (size > secretMaximumBytes) throw new Fault('invalid', `'${path}' has more than ${secretMaximumBytes} bytes`)
    const secret = (await file.readFile('utf8')).trim()
    if (!/^[\x20-\x7e]+$/.test(secret)) throw new Fault('invalid', `'${path}' holds no single line of plain text`)
    return secret
  } catch (cause) {
    const fault = asFileFault(cause, path)
    throw isFault(fault) ? fault : new Fault('failed', `'${path}' cannot be read: ${messageOf(cause)}`, { cause })
  }
}
