/** Serial ports. Each is a socket for a console, and a log of all the guest printed on it since its start. */
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'

export const serialCount = 4
export const parallelCount = 3

/** File names inside the guest's run directory; the first port has no number because it is the console. */
export function serialFiles(index: number): { socket: string; log: string } {
  const name = index === 0 ? 'serial' : `serial${index}`
  return { socket: `${name}.sock`, log: `${name}.log` }
}

/** Devices of the node behind the guest's ports and its entropy, by option. QEMU inherits them: it may not open them itself. */
export function nodePortsOf(options: Options): { readonly name: string; readonly path: string }[] {
  const names = [...namesOf('serial', serialCount), ...namesOf('parallel', parallelCount)]
  const entropy = options.rng0?.includes('/dev/hwrng') ? [{ name: 'rng0', path: '/dev/hwrng' }] : []
  const ports = names.flatMap((name) => {
    const path = options[name]
    return path === undefined || path === 'socket' ? [] : [{ name, path }]
  })
  return [...ports, ...entropy]
}

const namesOf = (family: string, count: number) => Array.from({ length: count }, (_, index) => `${family}${index}`)

/** @param ports descriptor of each device of the node, as QEMU sees it */
export function serialToArgv(options: Options, runDir: string, ports: Readonly<Record<string, number>> = {}): string[] {
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
      argv.push(...inheritedPort('serial', id, ports[id]))
    }
    argv.push(...device('isa-serial', { chardev: id, index }))
  }
  for (const id of namesOf('parallel', parallelCount)) {
    if (options[id] === undefined) continue
    const index = Number(id.slice('parallel'.length))
    argv.push(...inheritedPort('parallel', id, ports[id]), ...device('isa-parallel', { chardev: id, index }))
  }
  return argv
}

function inheritedPort(backend: string, id: string, descriptor = -1): string[] {
  const set = { fd: descriptor, set: descriptor }
  return ['-add-fd', keyed('', set), '-chardev', keyed(backend, { id, path: `/dev/fdset/${descriptor}` })]
}

export const firmwareLog = 'firmware.log'

/** What the firmware says while it looks for something to boot; a drill reads there why it found nothing. */
export function firmwareLogToArgv(runDir: string): string[] {
  const chardev = keyed('file', { id: 'firmware', path: `${runDir}/${firmwareLog}`, append: true })
  return ['-chardev', chardev, ...device('isa-debugcon', { iobase: '0x402', chardev: 'firmware' })]
}
