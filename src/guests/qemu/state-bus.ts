/**
 * A bus on which programs of the node meet a guest's QEMU, to send what they hold for the guest along with its state.
 *
 * QEMU asks each program of the name `org.qemu.VMState1` for its bytes when the guest's state leaves, and gives it them
 * where the state arrives. The bus is a message bus of the guest's own, under the guest's uid and without any right; who
 * can reach its socket may join, and the socket is in the run directory, which the guest's uid and root alone can enter.
 * To prove oneself by uid, as on other buses, takes an account for that uid, which a guest's does not have.
 *
 * The configuration is beside the run directory and not in it: what a QEMU that runs could replace is nothing for root
 * to write.
 */
import { rm } from 'node:fs/promises'
import { writeFileAtomic } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { endProcess, findProcesses, startTimeOf } from '#host/programs/proc.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import { asArgv, stripped } from './launch.ts'

const program = 'dbus-daemon'
const objectId = 'state-bus'
const startLimitMs = 10_000
const graceMs = 1_000

/** `/run/hakobune/guests/100` has its own at `/run/hakobune/guests/100.bus`. */
export const busConfig = (runDir: string) => `${runDir}.bus`
export const busSocket = (runDir: string) => `${runDir}/bus.sock`

/** Whether a process with these arguments is the bus of that guest. */
export function isBus(runDir: string): (argv: readonly string[]) => boolean {
  return (argv) => argv[0] === program && argv.includes(`--config-file=${busConfig(runDir)}`)
}

export interface BusPlace {
  readonly host: Host
  readonly runDir: string
  readonly uid: number
  /** Puts the bus under the guest's limits. */
  readonly confine: (pid: number) => Promise<void>
}

/**
 * Opens or closes the bus. Two who do this at once come one after the other: the caller holds a monitor, which serves
 * one.
 * @throws Fault `missing` without the program, `failed` with its words; then there is no bus
 */
export async function setStateBus(monitor: QmpClient, place: BusPlace, isWanted: boolean): Promise<void> {
  const isOpen = await isOnBus(monitor)
  if (isWanted && isOpen) return
  if (isOpen) await monitor.execute('object-del', { id: objectId })
  await close(place)
  if (!isWanted) return
  try {
    await place.confine(await start(place))
    await monitor.execute('object-add', { 'qom-type': 'dbus-vmstate', id: objectId, addr: addressOf(place.runDir) })
  } catch (cause) {
    await close(place)
    throw cause
  }
}

async function start({ host, runDir, uid }: BusPlace): Promise<number> {
  // The guest's uid reads it; nobody but root writes where it is.
  await writeFileAtomic(busConfig(runDir), configOf(addressOf(runDir)), 0o644)
  const command = [program, `--config-file=${busConfig(runDir)}`, '--fork', '--nopidfile', '--nosyslog', '--print-pid']
  const { stdout } = await host.run(asArgv([...stripped(uid), ...command]), { timeoutMs: startLimitMs })
  return Number(stdout.trim())
}

async function close({ runDir }: BusPlace): Promise<void> {
  for (const pid of await findProcesses(isBus(runDir))) {
    await endProcess(pid, await startTimeOf(pid), { graceMs })
  }
  await rm(busConfig(runDir), { force: true })
}

export async function isOnBus(monitor: QmpClient): Promise<boolean> {
  const objects = await monitor.execute<readonly { readonly name: string }[]>('qom-list', { path: '/objects' })
  return objects.some(({ name }) => name === objectId)
}

/** As D-Bus spells it: every unusual sign as %XX. */
function addressOf(runDir: string): string {
  const escaped = [...Buffer.from(busSocket(runDir))].map((byte) => {
    const sign = String.fromCodePoint(byte)
    return /[-0-9A-Za-z_/.]/.test(sign) ? sign : `%${byte.toString(16).padStart(2, '0')}`
  })
  return `unix:path=${escaped.join('')}`
}

/** Only those who are there talk to each other: no program is started for a name nobody has. */
function configOf(address: string): string {
  return `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>${address}</listen>
  <auth>ANONYMOUS</auth>
  <allow_anonymous/>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
  <limit name="max_completed_connections">32</limit>
  <limit name="max_incomplete_connections">8</limit>
</busconfig>
`
}
