/** Wakes a machine over the network: its address sixteen times, broadcast to where it sleeps. */
import { createSocket } from 'node:dgram'
import { Fault } from '#base/fault.ts'

const port = 9

/** Six bytes of ones, then the address sixteen times. */
export function magicPacket(mac: string): Buffer {
  const address = Buffer.from(mac.replaceAll(':', ''), 'hex')
  return Buffer.concat([Buffer.alloc(6, 0xff), ...Array.from({ length: 16 }, () => address)])
}

export interface WakeOptions {
  readonly broadcast?: string
  readonly port?: number
  /** Address of the interface to send from. */
  readonly from?: string | undefined
}

export async function wake(mac: string, options: WakeOptions = {}): Promise<void> {
  const socket = createSocket('udp4')
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind(0, options.from, () => {
        socket.setBroadcast(true)
        socket.send(magicPacket(mac), options.port ?? port, options.broadcast ?? '255.255.255.255', (error) =>
          error ? reject(error) : resolve(),
        )
      })
    })
  } catch (cause) {
    throw new Fault('failed', `nothing could be sent to wake ${mac}`, { cause })
  } finally {
    socket.close()
  }
}
