/**
 * Hands text to a server somewhere: by UDP, over a TCP connection, or as the body of an HTTP request. Always with a time
 * limit for the whole, looking up its name included; what the server answers is thrown away but for whether it took it.
 */
import { createSocket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { request as requestHttps } from 'node:https'
import { connect, isIP } from 'node:net'
import { Fault, messageOf } from '#base/fault.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici.
const { request: requestHttp } = process.getBuiltinModule('node:http')

export interface Destination {
  readonly host: string
  readonly port: number
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** @throws Fault `unavailable`: nobody has this name, or the packet could not leave. Whether it arrived nobody knows. */
export async function deliverByUdp(packets: readonly string[], to: Destination): Promise<void> {
  await within(to, async (signal) => {
    const { address, family } = await addressOf(to.host, signal)
    const socket = createSocket(family === 6 ? 'udp6' : 'udp4')
    const { promise: failure, reject } = Promise.withResolvers<never>()
    socket.on('error', reject)
    signal.addEventListener('abort', () => reject(new Error('too late')), { once: true })
    try {
      for (const packet of packets) {
        const sent = new Promise<void>((resolve, refuse) => {
          socket.send(packet, to.port, address, (error) => (error ? refuse(error) : resolve()))
        })
        await Promise.race([sent, failure])
      }
    } finally {
      failure.catch(() => {})
      socket.close()
    }
  })
}

/** @throws Fault `unavailable` when it cannot be reached, or does not take everything in time */
export async function deliverByTcp(text: string, to: Destination): Promise<void> {
  await within(to, async (signal) => {
    const { address } = await addressOf(to.host, signal)
    await new Promise<void>((resolve, reject) => {
      const socket = connect({ host: address, port: to.port, signal })
      socket.once('error', reject)
      // It has nothing to say, and may never hang up: once the kernel has it all, it is delivered as far as anybody knows.
      socket.resume()
      socket.end(text, () => {
        socket.destroy()
        resolve()
      })
    })
  })
}

export interface HttpDelivery extends Destination {
  readonly isTls: boolean
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly verifiesCertificate: boolean
}

/** @throws Fault `unavailable` when it cannot be reached, `failed` for an answer other than 2xx */
export async function deliverByHttp(body: string | Uint8Array, to: HttpDelivery): Promise<void> {
  const status = await within(to, async (signal) => {
    return new Promise<number>((resolve, reject) => {
      const { host, port, path, headers, isTls, verifiesCertificate } = to
      const options = {
        method: 'POST',
        host,
        port,
        path,
        signal,
        rejectUnauthorized: verifiesCertificate,
        agent: false,
      }
      const length = { 'Content-Length': Buffer.byteLength(body) }
      const request = (isTls ? requestHttps : requestHttp)(
        { ...options, headers: { ...headers, ...length } },
        (response) => {
          response.resume()
          response.once('end', () => resolve(response.statusCode ?? 0))
          response.once('error', reject)
        },
      )
      request.once('error', reject)
      request.end(body)
    })
  })
  if (status < 200 || status > 299) throw new Fault('failed', `${to.host}:${to.port} answers ${status}`)
}

async function addressOf(host: string, signal: AbortSignal): Promise<{ address: string; family: number }> {
  if (isIP(host) !== 0) return { address: host, family: isIP(host) }
  const { promise: late, reject } = Promise.withResolvers<never>()
  late.catch(() => {})
  signal.addEventListener('abort', () => reject(new Error('its name is not found in time')), { once: true })
  return Promise.race([lookup(host), late])
}

async function within<T>(
  { host, port, timeoutMs, signal }: Destination,
  act: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = AbortSignal.timeout(timeoutMs)
  try {
    return await act(AbortSignal.any([limit, ...(signal ? [signal] : [])]))
  } catch (cause) {
    const why = limit.aborted ? `it does not answer within ${timeoutMs / 1000} s` : messageOf(cause)
    throw new Fault('unavailable', `${host}:${port} cannot be reached: ${why}`, { cause })
  }
}
