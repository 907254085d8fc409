/** Tells people how a backup job went: by the node's own mail system, where it has one. */
import { isFault, messageOf } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { sendMail } from '#host/sendmail.ts'

export interface Notify {
  readonly mailTo: readonly string[]
  readonly on: 'always' | 'failure'
}

export interface JobReport {
  readonly node: string
  /** One line for each guest. */
  readonly guests: readonly string[]
  readonly isFailed: boolean
}

/** Nobody's backup fails because a mail does. */
export async function reportJob(
  host: Host,
  notify: Notify | undefined,
  { node, guests, isFailed }: JobReport,
  log: (line: string) => void,
): Promise<void> {
  if (notify === undefined || notify.mailTo.length === 0 || (notify.on === 'failure' && !isFailed)) return
  const to = notify.mailTo.join(', ')
  try {
    const subject = `backup on ${node}: ${isFailed ? 'FAILED' : 'successful'}`
    await sendMail(host, { to: notify.mailTo, subject, text: `${subject}\n\n${guests.join('\n')}\n` })
    log(`mail handed over for ${to}`)
  } catch (cause) {
    if (!isFault(cause)) throw cause
    log(`no mail goes to ${to}: ${isFault(cause, 'missing') ? 'this node has no mail system' : messageOf(cause)}`)
  }
}
