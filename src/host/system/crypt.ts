/** Passwords in the form of `/etc/shadow`, by openssl: Node has no crypt(3). */
import { invalid } from '#base/fault.ts'
import type { Host } from '../host.ts'

/** openssl cuts a longer one off, silently. */
const longestBytes = 255

/** `$6$…`: SHA-512 crypt with a fresh salt, which every Linux knows. The password goes by standard input alone. */
export async function cryptPassword(host: Host, password: string, field = 'password'): Promise<string> {
  if (Buffer.byteLength(password) > longestBytes) {
    throw invalid({ [field]: `value may only be ${longestBytes} bytes long` })
  }
  if (password === '' || /\p{Cc}/u.test(password)) {
    throw invalid({ [field]: 'a password has at least one character, and neither line breaks nor control characters' })
  }
  const { stdout } = await host.run(['openssl', 'passwd', '-6', '-stdin'], { input: `${password}\n` })
  return stdout.trim()
}
