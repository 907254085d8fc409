/**
 * SPICE: a screen that also carries sound, USB devices, files and the clipboard, for viewers such as virt-viewer. It is
 * served beside VNC, on a socket in the guest's run directory, by guests whose display is made for it.
 *
 * QEMU asks for a password, which is set when a viewer is expected and ends within seconds, and speaks TLS with a key
 * of its own (`spice-tls.ts`). Only root reaches the socket.
 */
import { Fault } from '#base/fault.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, optional } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'
import { hasSpice, vgaOf } from './vga.ts'

/** In the guest's run directory. */
export const spiceSocket = 'spice.sock'

export const spiceFormat: PropertyFormat = {
  foldersharing: { schema: optional(boolean({ description: 'Let viewers share a folder.', default: false })) },
  videostreaming: {
    schema: optional(
      enumOf(['off', 'all', 'filter'], { description: 'Which moving parts are sent as video.', default: 'off' }),
    ),
  },
}

export function spiceToArgv(options: Options, machine: MachineKind, runDir: string): string[] {
  const { isVncClipboard } = vgaOf(options)
  const isOn = hasSpice(options)
  if (!isOn && !isVncClipboard) return []
  const { foldersharing, videostreaming } = enhancementsOf(options)
  const agent = isVncClipboard
    ? keyed('qemu-vdagent', { id: 'vdagent', name: 'vdagent', clipboard: true })
    : keyed('spicevmc', { id: 'vdagent', name: 'vdagent' })
  return [
    ...(isOn ? ['-spice', keyed('', { ...tls(runDir), 'streaming-video': videostreaming })] : []),
    ...device('virtio-serial-pci', { id: 'spice', ...pciPlace(machine, 'spice') }),
    ...port('vdagent', agent, 'com.redhat.spice.0'),
    ...(isOn && foldersharing === true
      ? port('foldershare', keyed('spiceport', { id: 'foldershare', name: webdav }), webdav)
      : []),
  ]
}

/** A number that is no port: that there is one makes QEMU speak TLS on the socket. */
const tls = (runDir: string) => ({
  unix: true,
  addr: `${runDir}/${spiceSocket}`,
  'tls-port': 1,
  'x509-dir': runDir,
})

const webdav = 'org.spice-space.webdav.0'

/** A port of the guest; what runs in it finds it by name. */
function port(id: string, chardev: string, name: string): string[] {
  return ['-chardev', chardev, ...device('virtserialport', { bus: 'spice.0', chardev: id, name })]
}

function enhancementsOf({ spice_enhancements: text }: Options) {
  const values = text === undefined ? {} : readPropertyString(spiceFormat, text, 'spice_enhancements')
  const { foldersharing, videostreaming } = values
  return { foldersharing, videostreaming: typeof videostreaming === 'string' ? videostreaming : undefined }
}

/** What a QEMU says that was installed without its modules for SPICE. */
const withoutModules =
  /^(?:.*: )?(?:spice support is disabled|'(?:qxl|qxl-vga|spicevmc|spiceport|usb-redir)' is not a valid|.*Unknown audio driver `spice')/

/** The fault behind QEMU's last words, when they mean that SPICE is not installed. */
export function missingSpice(said: string, cause: unknown): Fault | undefined {
  if (!withoutModules.test(said)) return undefined
  return new Fault('missing', `QEMU on this node cannot do SPICE, which this guest's display needs: ${said}`, {
    cause,
    remedy:
      'Install the modules (package qemu-system-modules-spice; up to Debian 12 qemu-system-common), or choose another display: vga std.',
  })
}
