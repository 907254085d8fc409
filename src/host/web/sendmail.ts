/** Hands a mail to the mail system of the node, through the program every one of them has. */
import type { Host } from '../host.ts'

export interface Mail {
  /** Checked addresses. */
  readonly to: readonly string[]
  readonly subject: string
  readonly text: string
}

const limitMs = 60_000

/** @throws Fault `missing` when the node has no mail system, `failed` in its words */
export async function sendMail(host: Host, { to, subject, text }: Mail): Promise<void> {
  const headers = [
    `To: ${to.join(', ')}`,
    `Subject: ${encoded(subject)}`,
    'MIME-Version: 1.0',
    'Content-Type: text/plain; charset=utf-8',
    'Content-Transfer-Encoding: base64',
    'Auto-Submitted: auto-generated',
  ]
  const body = Buffer.from(text).toString('base64').replaceAll(/.{76}/g, '$&\n')
  await host.run(['sendmail', '-i', '--', ...to], { input: `${headers.join('\n')}\n\n${body}\n`, timeoutMs: limitMs })
}

/** A header holds no line break and nothing but ASCII. */
function encoded(text: string): string {
  return `=?utf-8?B?${Buffer.from(text.replaceAll(/\p{Cc}+/gu, ' ').slice(0, 200)).toString('base64')}?=`
}
