/**
 * Hands a mail to the mail system of the node, through the program every one of them has.
 *
 * Whom it is from and when it was is added by that program, which knows by what name the node goes among mails. An id it may leave
 * out, and large receivers refuse mails without one, so it is given.
 */
import { Fault, isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import type { Host } from '../host.ts'

export interface Mail {
  /** Name of the node. */
  readonly node: string
  /** Checked addresses. */
  readonly to: readonly string[]
  readonly subject: string
  readonly text: string
}

const limitMs = 60_000
const [subjectLength, wordsLength] = [200, 500]
/** So that a line of the head has at most 76 characters, as is asked of encoded words. */
const wordBytes = 39

/** @throws Fault `missing` when the node has no mail system, `failed` in its words */
export async function sendMail(host: Host, { node, to, subject, text }: Mail): Promise<void> {
  const headers = [
    // A line of all of them may be longer than servers take.
    `To: ${to.join(',\n ')}`,
    `Subject: ${encoded(subject)}`,
    `Message-ID: <${systemRandom.uuid()}@${node}>`,
    'MIME-Version: 1.0',
    'Content-Type: text/plain; charset=utf-8',
    'Content-Transfer-Encoding: base64',
    'Auto-Submitted: auto-generated',
  ]
  const body = Buffer.from(text).toString('base64').replaceAll(/.{76}/g, '$&\n')
  const input = `${headers.join('\n')}\n\n${body}\n`
  const words: string[] = []
  try {
    const onLine = (line: string) => void words.push(line)
    await host.run(['sendmail', '-i', '--', ...to], { input, timeoutMs: limitMs, onLine })
  } catch (cause) {
    if (!isFault(cause, 'failed') || words.length === 0) throw cause
    // The last line alone often says no more than that it did not work.
    throw new Fault('failed', `sendmail did not take it: ${words.join('; ').slice(0, wordsLength)}`, { cause })
  }
}

/** A header holds no line break and nothing but ASCII, in words that are not too long and end where a character does. */
function encoded(text: string): string {
  const words = ['']
  for (const letter of Array.from(text.replaceAll(/\p{Cc}+/gu, ' ')).slice(0, subjectLength)) {
    const longer = `${words.at(-1)}${letter}`
    if (Buffer.byteLength(longer) > wordBytes) words.push(letter)
    else words[words.length - 1] = longer
  }
  return words.map((word) => `=?utf-8?B?${Buffer.from(word).toString('base64')}?=`).join('\n ')
}
