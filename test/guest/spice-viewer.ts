/** Debian's virt-viewer as a person starts it, on a screen that is a file: what it shows can be read. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Canvas } from './canvas.ts'

export interface Desk extends AsyncDisposable {
  /** Opens a `.vv` file in a viewer that fills the screen, and ends when it is cut off. */
  readonly open: (file: string) => Promise<Viewer>
  /** Presses the keys of a text. */
  readonly type: (text: string) => Promise<void>
  readonly shown: () => Promise<Canvas>
}

export interface Viewer {
  /** All it has said about itself so far. */
  readonly said: () => string
  readonly hasEnded: () => boolean
  /** Whether the file it was told by is still there. */
  readonly hasFile: () => Promise<boolean>
  readonly close: () => Promise<void>
}

/** A desk of exactly this size: in a larger one the viewer would put the guest somewhere. */
export async function startDesk({ width, height }: { width: number; height: number }): Promise<Desk> {
  const directory = await mkdtemp(join(tmpdir(), 'hako-desk-'))
  const screen = ['-screen', '0', `${width}x${height}x24`, '-fbdir', directory]
  const server = spawn('Xvfb', ['-displayfd', '1', ...screen, '-nocursor', '-nolisten', 'tcp'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const display = await numberFrom(server)
  const viewers = new Set<ChildProcess>()
  let files = 0
  return {
    async open(file) {
      files += 1
      const path = join(directory, `${files}.vv`)
      await writeFile(path, file)
      const env = {
        PATH: '/usr/bin:/bin',
        DISPLAY: `:${display}`,
        HOME: directory,
        XDG_RUNTIME_DIR: directory,
        GDK_BACKEND: 'x11',
        NO_AT_BRIDGE: '1',
      }
      const words = ['--kiosk', '--kiosk-quit=on-disconnect', '--debug', path]
      const viewer = spawn('remote-viewer', words, { env, stdio: ['ignore', 'pipe', 'pipe'] })
      viewers.add(viewer)
      let said = ''
      for (const stream of [viewer.stdout, viewer.stderr])
        stream.on('data', (part: Buffer) => (said += part.toString()))
      const hasEnded = () => viewer.exitCode !== null || viewer.signalCode !== null
      return {
        said: () => said,
        hasEnded,
        hasFile: () =>
          access(path).then(
            () => true,
            () => false,
          ),
        async close() {
          if (hasEnded()) return
          viewer.kill('SIGTERM')
          await once(viewer, 'exit')
        },
      }
    },
    async type(text) {
      const env = { PATH: '/usr/bin:/bin', DISPLAY: `:${display}` }
      const typing = spawn('xdotool', ['type', '--file', '-'], { env, stdio: ['pipe', 'ignore', 'inherit'] })
      // It takes a line feed for a key of that name, which keyboards do not have.
      typing.stdin.end(text.replaceAll('\n', '\r'))
      const [code] = (await once(typing, 'exit')) as [number | null]
      assert.equal(code, 0)
    },
    shown: async () => readXwd(await readFile(join(directory, 'Xvfb_screen0'))),
    async [Symbol.asyncDispose]() {
      for (const one of [...viewers, server]) {
        if (one.exitCode !== null || one.signalCode !== null) continue
        one.kill('SIGTERM')
        await once(one, 'exit')
      }
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** The highest bar the viewer puts above the guest. */
const barRows = 80

/** How many rows of what QEMU has drawn the viewer shows otherwise, below its bar. Its window ends where the screen ends. */
export function rowsApart(shown: Canvas, drawn: Canvas): number {
  assert.equal(shown.width, drawn.width)
  const row = ({ width, pixels }: Canvas, y: number) => pixels.subarray(y * width * 4, (y + 1) * width * 4)
  const below = (bar: number) => {
    const rows = Array.from({ length: drawn.height - bar }, (_, y) => y)
    return rows.filter((y) => !row(shown, y + bar).equals(row(drawn, y))).length
  }
  return Math.min(...Array.from({ length: barRows }, (_, bar) => below(bar)))
}

async function numberFrom(server: ChildProcess): Promise<string> {
  if (!server.stdout) throw new Error('Xvfb has no standard output')
  for await (const line of createInterface({ input: server.stdout })) return line.trim()
  throw new Error('Xvfb did not start')
}

/** The X server's own picture (XWD, version 7): a head of numbers, colours, then rows of blue, green, red and nothing. */
function readXwd(bytes: Buffer): Canvas {
  const field = (index: number) => bytes.readUInt32BE(index * 4)
  const [head, width, height, stride, colours] = [field(0), field(4), field(5), field(12), field(19)]
  const begin = head + colours * 12
  const pixels = Buffer.alloc(width * height * 4, 255)
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const from = begin + y * stride + x * 4
      const to = (y * width + x) * 4
      for (let part = 0; part < 3; part += 1) pixels[to + part] = bytes[from + 2 - part] ?? 0
    }
  }
  return { width, height, pixels }
}
