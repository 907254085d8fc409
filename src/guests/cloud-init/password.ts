/** A password as it is kept: never the one that was given. */
import { invalid } from '#base/fault.ts'
import { cryptPassword } from '#host/system/crypt.ts'
import type { Host } from '#host/host.ts'
import type { Options } from '../config.ts'
import { maskedPassword } from './options.ts'

/** A hash of crypt(3) that the client made itself. */
const crypted = /^\$(?:1|5|6|y|2[aby])\$[^\s:$]+(?:\$[^\s:$]+)+$/

/** The same options with the password hashed. @throws Fault `invalid` for what cannot be one */
export async function withPasswordHashed(host: Host, options: Options): Promise<Options> {
  const { cipassword } = options
  if (cipassword === undefined || crypted.test(cipassword)) return options
  if (cipassword === maskedPassword) {
    throw invalid({ cipassword: 'this is what is shown instead of a password: leave it out to keep the one there is' })
  }
  return { ...options, cipassword: await cryptPassword(host, cipassword, 'cipassword') }
}
