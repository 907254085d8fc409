/**
 * A terminal as a screen for viewers by SPICE: an Xorg that draws by the driver of Xspice, which is a server of SPICE
 * itself, with one xterm on it.
 *
 * The driver listens on TCP alone, where every user of the machine could knock. So the X server has a network of its
 * own, with a loopback and nothing else, and socat is the one way in: from a unix socket that only root and the X
 * server's uid reach. The X server asks for the password itself and ends TLS; its key goes once it has been read.
 *
 * X server and xterm each see the machine's programs and one directory. All of it hangs together: when one has ended
 * the others are ended, and none outlives this process.
 */
import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:fs'
import { access, chown, mkdir, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Readable } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { makeDirectory } from '../files.ts'
import type { Argv, Host } from '../host.ts'
import type { KeyAndCertificate } from '../web/self-signed.ts'
import { connectToProcess } from '../programs/unix-peer.ts'
import { authorityOf, firstLine, started, startXterm, unprivileged } from './x-terminal.ts'

export interface SpiceTerminalOptions {
  /** Made, and removed at the end. */
  readonly directory: string
  /** Of X server, xterm and socat. */
  readonly uid: number
  readonly password: string
  readonly tls: KeyAndCertificate
  readonly random: Random
  readonly host: Host
}

/** Disposing of it ends everything. */
export interface SpiceTerminal extends AsyncDisposable {
  /** A connection for one channel. @throws Fault `unavailable` when it has ended */
  readonly connect: () => Promise<Socket>
}

const screen = { width: 1024, height: 768 } as const
/** On a loopback of its own. */
const port = 5900
const keyFile = 'server-key.pem'
/** The program itself: before it may stand a program that lets in only who sits at the machine. */
const xServer = '/usr/lib/xorg/Xorg'
const driver = '/usr/lib/xorg/modules/drivers/spiceqxl_drv.so'

/** @throws Fault `failed`, `timeout` */
export async function startSpiceTerminal(argv: Argv, options: SpiceTerminalOptions): Promise<SpiceTerminal> {
  const { directory, uid, host } = options
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  await writeDirectory(options)
  const ends: Promise<void>[] = []
  const bound = (child: ChildProcess) => {
    ends.push(new Promise((resolve) => child.once('exit', () => resolve())))
    undo.defer(() => void child.kill('SIGKILL'))
    return child
  }
  const server = bound(await startServer(options))
  const jail = await firstLine(server.stdio[4] as Readable, 'the jail of the X server (bwrap)')
  const display = await firstLine(server.stdio[3] as Readable, 'the X server (Xorg with the driver spiceqxl)')
  await rm(`${directory}/x11/${keyFile}`)
  const x = { DISPLAY: `:${display}`, XAUTHORITY: '/etc/X11/cookie' }
  bound(await startXterm(argv, { ...screen, uid, host, x, around: (program) => jailed(directory, [], program) }))
  const socket = `${directory}/way/in`
  const way = bound(await startWayIn(socket, networkOf(jail), uid))
  const said = await firstLine(way.stderr as Readable, 'the way into its network (socat)')
  if (!said.includes(' N listening on ')) throw new Fault('failed', `the way into its network was not opened: ${said}`)
  way.stderr?.resume()
  const release = undo.move()
  void Promise.race(ends).then(() => release.disposeAsync())
  const { pid = 0 } = way
  return {
    connect: () => connectToProcess(socket, { pid, uid }),
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

/** @throws Fault `missing` naming what is not installed */
export async function requireSpiceTerminal(): Promise<void> {
  for (const path of [xServer, driver, '/usr/bin/xterm', '/usr/bin/socat', '/usr/bin/bwrap']) {
    await access(path, constants.R_OK).catch((cause: unknown) => {
      throw new Fault('missing', `'${path}' is not installed`, {
        cause,
        remedy:
          'A terminal drawn for viewers by SPICE needs it: apt-get install xserver-xspice xterm socat bubblewrap. termproxy and vncproxy do without Xspice.',
      })
    })
  }
}

async function writeDirectory({ directory, uid, random, tls }: SpiceTerminalOptions): Promise<void> {
  await makeDirectory(dirname(directory))
  const x11 = `${directory}/x11`
  // Others than root pass through on their way; what stands in there only root replaces.
  for (const path of [directory, x11]) await mkdir(path, { mode: 0o711 })
  for (const path of [`${directory}/display`, `${directory}/way`]) {
    await mkdir(path, { mode: 0o700 })
    await chown(path, uid, uid)
  }
  const files = {
    'xorg.conf': configuration,
    cookie: authorityOf(random.bytes(16)),
    [keyFile]: tls.key,
    'server-cert.pem': tls.certificate,
    'ca-cert.pem': tls.certificate,
  }
  for (const [name, content] of Object.entries(files)) {
    await writeFile(`${x11}/${name}`, content, { mode: 0o600 })
    await chown(`${x11}/${name}`, uid, uid)
  }
}

function startServer({ directory, uid, password }: SpiceTerminalOptions): Promise<ChildProcess> {
  const x = ['-config', 'xorg.conf', '-logfile', '/dev/null', '-displayfd', '3', '-auth', '/etc/X11/cookie']
  // The driver does not survive a reset.
  const rules = ['-nolisten', 'tcp', '-noreset', '-novtswitch', '-sharevts', '-extension', 'GLX']
  const program = unprivileged(uid, [xServer, ...x, ...rules])
  const network = ['--json-status-fd', '4']
  return started(jailed(directory, network, program), ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], {
    XSPICE_PORT: '0',
    XSPICE_TLS_PORT: String(port),
    XSPICE_ADDR: '127.0.0.1',
    XSPICE_PASSWORD: password,
    XSPICE_X509_DIR: '/etc/X11',
  })
}

/** Says a first line when it listens. */
function startWayIn(socket: string, network: string, uid: number): Promise<ChildProcess> {
  const ends = [`UNIX-LISTEN:${socket},fork,mode=600,max-children=64`, `TCP4:127.0.0.1:${port}`] as const
  const program = unprivileged(uid, ['socat', '-d', '-d', ...ends])
  return started(['nsenter', `--net=${network}`, ...program], ['ignore', 'ignore', 'pipe'])
}

/** @param status of bwrap: one line of JSON */
function networkOf(status: string): string {
  const { 'child-pid': pid } = JSON.parse(status) as { 'child-pid'?: unknown }
  if (typeof pid !== 'number') throw new Fault('failed', 'the jail of the X server (bwrap) has no process')
  return `/proc/${pid}/ns/net`
}

/** Sees the machine's programs, its directory as that of X, and the sockets of X; no network, unless it brings one. */
function jailed(directory: string, more: readonly string[], argv: Argv): Argv {
  const sandbox = [
    ['--unshare-ipc', '--unshare-net', '--unshare-pid', '--unshare-uts', '--die-with-parent'],
    ['--ro-bind', '/usr', '/usr'],
    ...['bin', 'lib', 'lib64', 'sbin'].map((name) => ['--symlink', `usr/${name}`, `/${name}`]),
    ['--proc', '/proc', '--dev', '/dev', '--perms', '1777', '--tmpfs', '/tmp', '--perms', '0755', '--dir', '/etc'],
    ['--ro-bind', `${directory}/x11`, '/etc/X11', '--bind', `${directory}/display`, '/tmp/.X11-unix'],
    ['--remount-ro', '/', ...more],
  ]
  return ['bwrap', ...sandbox.flat(), '--', ...argv]
}

/**
 * All is drawn in memory, from where what has changed is sent 30 times a second. The sizes, in MiB, have to be said: what
 * the driver takes for want of them is nothing, which it does not survive.
 */
const configuration = `
Section "Device"
  Identifier "screen"
  Driver "spiceqxl"
  Option "NumHeads" "1"
  Option "SpiceDeferredFPS" "30"
  Option "FrameBufferSize" "16"
  Option "CommandBufferSize" "64"
  Option "SurfaceBufferSize" "32"
EndSection
Section "InputDevice"
  Identifier "pointer"
  Driver "xspice pointer"
EndSection
Section "InputDevice"
  Identifier "keyboard"
  Driver "xspice keyboard"
EndSection
Section "Monitor"
  Identifier "monitor"
EndSection
Section "Screen"
  Identifier "screen"
  Device "screen"
  Monitor "monitor"
  DefaultDepth 24
  SubSection "Display"
    Virtual ${screen.width} ${screen.height}
    Modes "${screen.width}x${screen.height}"
  EndSubSection
EndSection
Section "ServerLayout"
  Identifier "layout"
  Screen "screen"
  InputDevice "keyboard"
  InputDevice "pointer"
EndSection
Section "ServerFlags"
  Option "AutoAddDevices" "False"
  Option "AutoAddGPU" "False"
EndSection
`
