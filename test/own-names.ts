/**
 * Names and ports that no other test has at the same time. Many nodes live at once, in test processes that know nothing
 * of each other; two with one name would share bridges, control groups and directories.
 */
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

/** For `HAKO_INSTANCE`: the letter says who made it, the rest is drawn from sixty million. */
export function freshInstance(letter: string): string {
  return (
    letter +
    randomInt(36 ** 5)
      .toString(36)
      .padStart(5, '0')
  )
}

// Below those the kernel gives to whoever asks for any.
const [firstPort, ports, portsEach] = [10_000, 22_000, 16]
let given = 0

/** A port nobody listens on, from a range of this process's own: none but it takes it before it is used. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = firstPort + ((process.pid * portsEach + given) % ports)
    given += 1
    if (await isFree(port)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, () => server.close(() => resolve(true)))
  })
}
