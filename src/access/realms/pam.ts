/**
 * The system's own passwords, checked by its whole PAM stack: local passwords, directory services, lockouts,
 * expired accounts and second factors hold here exactly as the administrator set them up.
 *
 * The check runs as a process of its own (`pamtester`, service `hakobune`, which without a file of that name
 * is PAM's `other`): PAM modules block for seconds and may crash, and neither may happen to the daemon. The
 * password goes in on standard input. Rejected: `unix_chkpwd`, which is always there but knows local
 * passwords only, so a lockout or second factor set up in PAM would silently not hold.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { accessLimits } from '../limits.ts'
import type { Realm } from './realm.ts'

/** Names `useradd` accepts, so that none can be taken for an option. */
const systemName = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/
/** Accounts with an empty password exist; nobody logs in with nothing. */
const authenticate = 'authenticate(PAM_DISALLOW_NULL_AUTHTOK)'

export class PamRealm implements Realm {
  readonly name = 'pam'
  readonly answersForStrangers = false
  readonly #host: Host

  constructor({ host }: { host: Host }) {
    this.#host = host
  }

  async verify(name: string, password: string): Promise<boolean> {
    // A line break would answer the next question of the stack as well.
    if (!systemName.test(name) || password === '' || /[\n\r\0]/.test(password)) return false
    if (!(await this.#isSystemUser(name))) return false
    try {
      const { code } = await this.#host.run(['pamtester', 'hakobune', name, authenticate, 'acct_mgmt'], {
        input: `${password}\n`,
        okCodes: [0, 1],
        timeoutMs: accessLimits.login.pamTimeoutMs,
        outputBytes: 64 * 1024,
      })
      return code === 0
    } catch (error) {
      if (isFault(error, 'missing')) throw notInstalled(error)
      throw error
    }
  }

  async #isSystemUser(name: string): Promise<boolean> {
    // 2: no such key in the database.
    const { code } = await this.#host.run(['getent', 'passwd', name], { okCodes: [0, 2] })
    return code === 0
  }
}

function notInstalled(cause: unknown): Fault {
  return new Fault('unavailable', "system passwords cannot be checked: the program 'pamtester' is not installed", {
    cause,
    remedy: 'Install it (`apt install pamtester`), or log in as a user of the realm pve.',
  })
}
