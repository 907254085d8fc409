/** `hako datastore serve` and `token`: datastores for others, over TLS. */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFile, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { seconds } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { PlaceServer } from '#datastore/serve/server.ts'
import {
  hashOfToken,
  newToken,
  parseRights,
  parseTokens,
  printToken,
  type ServeToken,
} from '#datastore/places/https/tokens.ts'
import { asFileFault, readIfPresent, writeFileAtomic } from '#host/files.ts'
import { makeSelfSigned } from '#host/web/self-signed.ts'
import { createTlsServer } from '#http/tls-port.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { say } from '../text.ts'
import { deps } from './deps.ts'

const validDays = 3_650

/** Until the terminal's signal. */
export async function serve(folder: string, { params }: Parsed, terminal: Terminal): Promise<void> {
  const given = (name: string) => (typeof params[name] === 'string' ? params[name] : undefined)
  const tokenFile = given('token-file')
  if (tokenFile === undefined) {
    throw new Fault('invalid', 'nobody may do anything without tokens', {
      remedy: 'Make one, and name its file: hako datastore token, --token-file.',
    })
  }
  await requireFolder(folder)
  const { host, port } = addressIn(given('listen') ?? '127.0.0.1:8017')
  const tls = await certificateOf(given('certificate'), given('key'), tokenFile, host)
  const tokens = freshTokens(tokenFile)
  await tokens()
  const log = createLog((line) => process.stderr.write(`${line}\n`), 'warn')
  await using places = new PlaceServer({ folder: resolve(folder), tokens }, { ...deps, log })
  const server = createTlsServer({ ...tls, onRequest: places.handle })
  server.listen(port, host)
  await Promise.race([
    once(server, 'listening'),
    once(server, 'error').then(([cause]) =>
      Promise.reject(new Fault('unavailable', `cannot listen at ${host}:${port}`, { cause })),
    ),
  ])
  const at = server.address()
  const listening = `${host}:${typeof at === 'object' && at ? at.port : port}`
  terminal.out(say(terminal.language, 'serving', listening, new X509Certificate(tls.certificate).fingerprint256))
  await new Promise<void>((done) => {
    const { signal } = terminal
    process.once('SIGTERM', () => done())
    if (signal.aborted) done()
    else signal.addEventListener('abort', () => done(), { once: true })
  })
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
}

async function requireFolder(folder: string): Promise<void> {
  const facts = await stat(folder).catch((cause: unknown) => {
    throw asFileFault(cause, folder)
  })
  if (!facts.isDirectory()) throw new Fault('invalid', `'${folder}' is no directory`)
}

function addressIn(text: string): { readonly host: string; readonly port: number } {
  const [, host = '', port = ''] = /^\[?([0-9A-Za-z.:-]+?)\]?:(\d{1,5})$/.exec(text) ?? []
  if (host !== '' && Number(port) <= 65_535) return { host, port: Number(port) }
  throw new Fault('invalid', `listen: '${text}' is no address and port`, { remedy: 'It is one such as 0.0.0.0:8017.' })
}

/** A change of the file holds from the next request on. */
function freshTokens(path: string): () => Promise<readonly ServeToken[]> {
  let known: { readonly changed: string; readonly tokens: readonly ServeToken[] } | undefined
  return async () => {
    try {
      const { mtimeMs, size, ino, mode } = await stat(path)
      if ((mode & 0o022) !== 0) {
        throw new Fault('denied', `'${path}' says who may do what, and others may write it`, {
          remedy: `chmod 600 ${path}`,
        })
      }
      const changed = `${mtimeMs} ${size} ${ino}`
      if (known?.changed !== changed) known = { changed, tokens: parseTokens(await readFile(path, 'utf8')) }
      return known.tokens
    } catch (cause) {
      throw asFileFault(cause, path)
    }
  }
}

async function certificateOf(
  certificate: string | undefined,
  key: string | undefined,
  tokenFile: string,
  host: string,
) {
  if ((certificate === undefined) !== (key === undefined)) {
    throw new Fault('invalid', 'a certificate and its key go together', { remedy: 'Give both: --certificate, --key.' })
  }
  if (certificate !== undefined && key !== undefined)
    return { certificate: await read(certificate), key: await read(key) }
  const [ownCertificate, ownKey] = [`${tokenFile}.pem`, `${tokenFile}.key`]
  const [known, knownKey] = [await readIfPresent(ownCertificate), await readIfPresent(ownKey)]
  if (known !== undefined && knownKey !== undefined) return { certificate: known, key: knownKey }
  const made = await makeSelfSigned({
    subject: `CN=${hostname().slice(0, 60)}, O=Hakobune`,
    names: { hosts: [hostname(), 'localhost'], addresses: /^[0-9.]+$/.test(host) ? [host] : [] },
    validDays,
    clock: deps.clock,
    random: deps.random,
  })
  await writeFileAtomic(ownKey, made.key)
  await writeFileAtomic(ownCertificate, made.certificate)
  return made
}

async function read(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
}

/** Adds a line to the file of tokens. @throws Fault `conflict` when the name is taken */
export async function makeToken(path: string, name: string, { params }: Parsed, terminal: Terminal): Promise<void> {
  const rights = parseRights(typeof params.rights === 'string' ? params.rights : 'read,write')
  const token = newToken(deps.random)
  const line = printToken({ name, rights, hash: hashOfToken(token) })
  if (parseTokens(line).length !== 1) throw new Fault('invalid', `'${name}' cannot be the name of a token`)
  const known = (await readIfPresent(path)) ?? `# ${new Date(seconds(deps.clock) * 1000).toISOString()}\n`
  if (parseTokens(known).some((one) => one.name === name)) {
    throw new Fault('conflict', `there is a token '${name}' already`, {
      remedy: 'Choose another name, or remove its line.',
    })
  }
  await writeFileAtomic(path, known.endsWith('\n') ? `${known}${line}` : `${known}\n${line}`)
  terminal.out(token)
}
