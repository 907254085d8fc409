/** What a command that is run inside a container finds as its environment. */
import type { Options } from '../config.ts'
import { variablesIn } from './conf.ts'

const usual = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  TERM: 'linux',
}

export function environmentOf({ env }: Options): Readonly<Record<string, string>> {
  const own = variablesIn(env).map((one) => [one.slice(0, one.indexOf('=')), one.slice(one.indexOf('=') + 1)])
  return { ...usual, ...Object.fromEntries(own) }
}
