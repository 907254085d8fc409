/**
 * Entry of the front: the unprivileged process the world talks to.
 *
 * Its whole configuration, the TLS key included, arrives as one line on standard input, because arguments
 * and environment can be read by others. The input then stays open for renewals of the certificate; when it ends, the
 * daemon is gone and so is the front.
 */
import { flushCompileCache } from 'node:module'
import { createInterface } from 'node:readline'
import { type Fault, isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { type Front, startFront } from '#http/front-main.ts'
import type { FrontMessage } from '#http/wire.ts'
import { readMark } from '#store/mark.ts'

// What Node compiled is kept while this may still write where only root can.
flushCompileCache()
dropPrivileges(Number(process.argv[2]))
process.umask(0o077)
const log = createLog((line) => process.stderr.write(`${line}\n`))
const say = (message: FrontMessage) => process.stdout.write(`${JSON.stringify(message)}\n`)

/** Becomes the front's own uid. All it runs is imported by now: from here on it may not read its program. */
function dropPrivileges(uid: number): void {
  if (!Number.isSafeInteger(uid) || uid <= 0) throw new Error('the front must be told the uid to run as')
  if (!process.setgroups || !process.setgid || !process.setuid) throw new Error('this system has no users')
  if (process.getuid?.() === uid) return
  process.setgroups([])
  process.setgid(uid)
  process.setuid(uid)
}

function faultMessage({ kind, message, remedy }: Fault): FrontMessage {
  return { fault: { kind, message, ...(remedy === undefined ? {} : { remedy }) } }
}

function end(fault: Fault): void {
  say(faultMessage(fault))
  process.exitCode = 1
  process.stdin.destroy()
}

function renew(front: Front, line: string): void {
  try {
    front.renew(line)
    say({ renewed: true })
  } catch (error) {
    if (!isFault(error)) throw error
    say(faultMessage(error))
  }
}

const lines = createInterface({ input: process.stdin })
lines.once('line', (line) => {
  startFront(line, log, readMark).then(
    (front) => {
      lines.on('line', (renewal) => renew(front, renewal))
      say({ ready: { port: front.port, ...(front.spice ? { spice: front.spice } : {}) } })
    },
    (error: unknown) => {
      if (!isFault(error)) throw error
      end(error)
    },
  )
})
lines.once('close', () => process.exit())
process.once('SIGTERM', () => process.exit(0))
