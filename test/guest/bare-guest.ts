/** The tiny guest under a QEMU of the test's own, without any of the product around it. */
import { spawn } from 'node:child_process'
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { AgentClient } from '#host/qemu/guest-agent.ts'
import { QmpClient } from '#host/qemu/qmp.ts'
import type { GuestImage } from '#lab/guest-image.ts'
import { freePort } from '../own-names.ts'

export type Way = 'virtio-scsi' | 'virtio-blk' | 'memory'

export interface BareGuest extends AsyncDisposable {
  /** Its copy of the disk. */
  readonly disk: string
  readonly serial: () => Promise<string>
  /** Waits for a text on the serial console and returns the line it is in. */
  readonly until: (text: RegExp, timeoutMs?: number) => Promise<string>
  /** As `until`, for what the firmware says. */
  readonly untilFirmware: (text: RegExp) => Promise<string>
  readonly agent: (timeoutMs?: number) => Promise<AgentClient>
  readonly qmp: () => Promise<QmpClient>
  /** Through a port forwarded to the guest's web server. */
  readonly page: (path: string) => Promise<{ status: number; body: string }>
  /** QEMU ended by itself. */
  readonly untilOff: () => Promise<void>
}

export async function boot(image: GuestImage, way: Way, options: { readonly disk?: string } = {}): Promise<BareGuest> {
  await using undo = new AsyncDisposableStack()
  const place = await mkdtemp(join(tmpdir(), 'hako-guest-'))
  undo.defer(() => rm(place, { recursive: true, force: true }))
  const file = (name: string) => join(place, name)
  const disk = options.disk ?? file('disk.raw')
  if (options.disk === undefined) await copyFile(image.path, disk)
  const port = await freePort()
  const argv = [...common(file, port), ...drive(image, way, disk)]
  const qemu = spawn('qemu-system-x86_64', argv, { stdio: ['ignore', 'ignore', 'pipe'] })
  let complaint = ''
  qemu.stderr.on('data', (part: Buffer) => (complaint += part.toString('utf8')))
  const isOff = () => qemu.exitCode !== null || qemu.signalCode !== null
  undo.defer(async () => {
    qemu.kill('SIGKILL')
    await waitFor(isOff, { what: 'the end of QEMU', timeoutMs: 60_000 })
  })
  const said = (name: string) => readFile(file(name), 'utf8').catch(() => '')
  const line = (name: string, text: RegExp, timeoutMs = 180_000) =>
    waitFor(
      async () => {
        if (isOff()) throw new Error(`QEMU ended: ${complaint}\n${await said('serial.log')}`)
        // A line is read when it is whole: its end may still be on the way.
        const whole = (await said(name)).split(/\r?\n/).slice(0, -1)
        return whole.find((one) => text.test(one))
      },
      { what: `${text} in ${name}`, timeoutMs },
    )
  const listener = () => ({ pid: qemu.pid ?? 0, uid: process.getuid?.() ?? 0 })
  const held = undo.move()
  return {
    disk,
    serial: () => said('serial.log'),
    until: (text, timeoutMs) => line('serial.log', text, timeoutMs),
    untilFirmware: (text) => line('firmware.log', text),
    agent: (timeoutMs = 30_000) => AgentClient.connect(file('agent.sock'), { listener: listener(), timeoutMs }),
    qmp: () => QmpClient.connect(file('qmp.sock'), { listener: listener() }),
    async page(path) {
      const reply = await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(10_000) })
      return { status: reply.status, body: await reply.text() }
    },
    async untilOff() {
      await waitFor(isOff, { what: 'power off', timeoutMs: 60_000 })
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

function common(file: (name: string) => string, port: number): string[] {
  const socket = (id: string) => `socket,id=${id},path=${file(`${id}.sock`)},server=on,wait=off`
  return [
    '-accel tcg,thread=multi -M q35 -cpu max -m 192 -nodefaults -display none -no-reboot',
    `-qmp unix:${file('qmp.sock')},server=on,wait=off`,
    `-device virtio-serial-pci -chardev ${socket('agent')}`,
    '-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0',
    `-serial file:${file('serial.log')}`,
    // Where the firmware says what it finds.
    `-debugcon file:${file('firmware.log')} -global isa-debugcon.iobase=0x402`,
    `-netdev user,id=n0,hostfwd=tcp:127.0.0.1:${port}-:80 -device virtio-net-pci,netdev=n0,romfile=`,
  ].flatMap((words) => words.split(' '))
}

function drive({ kernel, initrd }: GuestImage, way: Way, disk: string): string[] {
  const block = ['-blockdev', `driver=raw,node-name=d0,file.driver=file,file.filename=${disk}`]
  switch (way) {
    case 'virtio-scsi':
      return [...block, '-device', 'virtio-scsi-pci,id=s0', '-device', 'scsi-hd,drive=d0,bus=s0.0']
    case 'virtio-blk':
      return [...block, '-device', 'virtio-blk-pci,drive=d0']
    case 'memory':
      return ['-kernel', kernel, '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1']
    default:
      return way satisfies never
  }
}
