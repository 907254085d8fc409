/** The real curl, because it shows what is on the wire and is not Node. */
import { spawn } from 'node:child_process'

export interface CurlReply {
  readonly status: number
  readonly reason: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** Exit code of curl. */
  readonly code: number
  readonly errors: string
}

/** Runs `curl -sSi -k` and reads the last response it prints. */
export async function curl(args: readonly string[], input?: string | Uint8Array): Promise<CurlReply> {
  const { code, output, errors } = await run(['-sSi', '-k', '--max-time', '20', '--noproxy', '*', ...args], input)
  const text = output.replace(/^HTTP\/1\.1 1\d\d [^\r]*\r\n(?:[^\r]+\r\n)*\r\n/, '')
  const end = text.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = (end < 0 ? text : text.slice(0, end)).split('\r\n')
  const [, status = '0', reason = ''] = /^HTTP\/1\.[01] (\d+) ?(.*)$/.exec(statusLine) ?? []
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
  }
  return { status: Number(status), reason, headers, body: end < 0 ? '' : text.slice(end + 4), code, errors }
}

function run(args: readonly string[], input?: string | Uint8Array) {
  return new Promise<{ code: number; output: string; errors: string }>((resolve, reject) => {
    const child = spawn('curl', args, { stdio: ['pipe', 'pipe', 'pipe'] })
    let [output, errors] = ['', '']
    // Reason phrases are Latin-1 on the wire.
    child.stdout.setEncoding('latin1').on('data', (part: string) => (output += part))
    child.stderr.setEncoding('utf8').on('data', (part: string) => (errors += part))
    child.once('error', reject)
    child.once('close', (code) => resolve({ code: code ?? -1, output, errors }))
    child.stdin.on('error', () => {}) // curl may end without reading everything.
    child.stdin.end(input)
  })
}
