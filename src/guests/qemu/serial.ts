/** Serial ports. Each is a socket for a console, and a log of all the guest printed on it since its start. */
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'

export const serialCount = 4

/** File names inside the guest's run directory; the first port has no number because it is the console. */
export function serialFiles(index: number): { socket: string; log: string } {
  const name = index === 0 ? 'serial' : `serial${index}`
  return { socket: `${name}.sock`, log: `${name}.log` }
}

export function serialToArgv(options: Options, runDir: string): string[] {
  const argv: string[] = []
  for (let index = 0; index < serialCount; index += 1) {
    const value = options[`serial${index}`]
    if (value === undefined) continue
    const id = `serial${index}`
    if (value === 'socket') {
      const { socket, log } = serialFiles(index)
      const paths = { path: `${runDir}/${socket}`, logfile: `${runDir}/${log}`, logappend: true }
      argv.push('-chardev', keyed('socket', { id, server: 'on', wait: 'off', ...paths }))
    } else {
      argv.push('-chardev', keyed('serial', { id, path: value }))
    }
    argv.push(...device('isa-serial', { chardev: id, index }))
  }
  return argv
}

export const firmwareLog = 'firmware.log'

/** What the firmware says while it looks for something to boot; a drill reads there why it found nothing. */
export function firmwareLogToArgv(runDir: string): string[] {
  const chardev = keyed('file', { id: 'firmware', path: `${runDir}/${firmwareLog}`, append: true })
  return ['-chardev', chardev, ...device('isa-debugcon', { iobase: '0x402', chardev: 'firmware' })]
}
