/** Keys pressed from outside: `ctrl-alt-delete`, as QEMU's own console spells them. */
import { Fault, invalid, isFault } from '#base/fault.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'

/** Names people know beside QEMU's own. */
const aliases: Readonly<Record<string, string>> = { enter: 'ret', escape: 'esc', space: 'spc', del: 'delete' }
/** More are not held down at once. */
const mostKeys = 16

type Key = { readonly type: 'qcode'; readonly data: string } | { readonly type: 'number'; readonly data: number }

/** `0x1d` is a key by its number, everything else by its name. @throws Fault `invalid` */
export function keysOf(text: string): Key[] {
  const parts = text.split('-')
  if (parts.length > mostKeys) throw invalid({ key: `no more than ${mostKeys} keys can be pressed at once` })
  return parts.map((part) => {
    if (/^0x[0-9a-f]{1,4}$/i.test(part)) return { type: 'number', data: Number(part) }
    if (!/^[a-z0-9_]{1,32}$/.test(part)) throw invalid({ key: `'${part}' is no key: 'ctrl-alt-delete' has three` })
    return { type: 'qcode', data: aliases[part] ?? part }
  })
}

/** Presses the keys together. @throws Fault `invalid` for a name QEMU does not know */
export async function pressKeys(monitor: QmpClient, text: string): Promise<void> {
  try {
    await monitor.execute('send-key', { keys: keysOf(text) })
  } catch (cause) {
    if (!isFault(cause, 'failed') || !/does not accept value|Invalid parameter/.test(cause.message)) throw cause
    const name = /value '([^']*)'/.exec(cause.message)?.[1] ?? text
    throw new Fault('invalid', 'Parameter verification failed.', { cause, fields: { key: `unknown key '${name}'` } })
  }
}
