/**
 * `hako user tfa add bob@pve`: a new authenticator app, from its secret on the screen to the code that proves it. With a
 * type (`recovery`) it is a command like any other.
 */
import { type Fault, isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import type { Command } from '#rest/command.ts'
import { newAppSecret } from './app-secret.ts'
import { parseFor } from './arguments.ts'
import { exitCodes } from './exit.ts'
import { filledPath } from './path.ts'
import { printed } from './print.ts'
import { type RunFacts, runCommand } from './run-command.ts'
import { say } from './text.ts'

export async function addFactor(command: Command, args: readonly string[], facts: RunFacts): Promise<number> {
  const { positionals, params, global } = parseFor(command, args)
  const [userid, type = 'totp'] = positionals
  const isOnlyDescribed = Object.keys(params).every((name) => name === 'description')
  const isGuided = userid !== undefined && type === 'totp' && isOnlyDescribed && !global.help
  if (!isGuided || positionals.length > 2) return runCommand(command, args, facts)
  const { connection, terminal } = facts
  const { language, width } = terminal
  const totp = newAppSecret(systemRandom, userid)
  terminal.show(say(language, 'scanApp'))
  if (width !== undefined) terminal.out((await import('uqr')).renderUnicodeCompact(totp))
  terminal.out(totp)
  const value = await terminal.readSecret(say(language, 'codeOfApp'))
  const path = filledPath(command.path, { userid })
  const send = (more: Record<string, string | string[]>) =>
    connection.call('POST', path, { ...params, type, totp, value, ...more }, { signal: terminal.signal })
  const { data } = await send({}).catch(async (error: unknown) => {
    if (!wantsPassword(error)) throw error
    return send({ password: await terminal.readSecret('password: ') })
  })
  terminal.out(await printed(data, { format: global.output, id: 'id', language, width }))
  return exitCodes.ok
}

/** Only root is not asked. */
function wantsPassword(error: unknown): error is Fault {
  return isFault(error, 'invalid') && error.fields?.password !== undefined
}
