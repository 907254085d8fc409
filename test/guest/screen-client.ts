/** A client of screens that is not ours in what it reads: the few words of RFB 3.8 it takes to look and to type. */
import { once } from 'node:events'
import { answerTo } from '#consoles/screen.ts'
import { webSocket } from './console-client.ts'

export interface ScreenClient {
  readonly width: number
  readonly height: number
  readonly type: (text: string) => void
  readonly close: () => void
}

const enter = 0xff0d

export async function screenAt(url: string, cookie: string, password: string): Promise<ScreenClient> {
  const socket = webSocket(url, cookie)
  let bytes = Buffer.alloc(0)
  let wake = () => {}
  socket.addEventListener('message', ({ data }) => {
    bytes = Buffer.concat([bytes, Buffer.from(data as ArrayBuffer)])
    wake()
  })
  let isOver = false
  socket.addEventListener('close', () => {
    isOver = true
    wake()
  })
  const read = async (length: number): Promise<Buffer> => {
    while (bytes.length < length) {
      if (isOver) throw new Error('the screen was closed')
      await new Promise<void>((resolve) => (wake = resolve))
    }
    const part = bytes.subarray(0, length)
    bytes = bytes.subarray(length)
    return part
  }
  await once(socket, 'open')
  await read(12)
  socket.send(Buffer.from('RFB 003.008\n'))
  await read((await read(1))[0] ?? 0)
  socket.send(Buffer.of(2))
  socket.send(answerTo(await read(16), password))
  if ((await read(4)).readUInt32BE() !== 0) throw new Error('the password was refused')
  socket.send(Buffer.of(1))
  const start = await read(24)
  await read(start.readUInt32BE(20))
  const press = (key: number, isDown: boolean) => {
    const message = Buffer.from([4, isDown ? 1 : 0, 0, 0, 0, 0, 0, 0])
    message.writeUInt32BE(key, 4)
    socket.send(message)
  }
  return {
    width: start.readUInt16BE(0),
    height: start.readUInt16BE(2),
    type: (text) => {
      for (const letter of text) {
        const key = letter === '\n' ? enter : (letter.codePointAt(0) ?? 0)
        press(key, true)
        press(key, false)
      }
    },
    close: () => socket.close(),
  }
}
