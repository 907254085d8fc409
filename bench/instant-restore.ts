/**
 * A guest that runs from its backup: how long until its disk is ready, until the guest runs, until it is up, and how much of
 * the backup is read until then. The copying is held back, so what is counted is what the guest asked for.
 *
 *   node bench/instant-restore.ts [debian|lab] [rounds]
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { MiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { ensureDebianImage } from '../test/fixtures/debian-image.ts'
import { confirmedKeys } from '../test/fixtures/confirmed-keys.ts'
import { benchNode } from './bench-node.ts'
import { median, row, table } from './figures.ts'

const [system = 'debian', rounds = '3'] = process.argv.slice(2)
const bootMs = 15 * 60_000
const host = machine()

await using node = await benchNode()
const { settings } = node
const api = async (...call: Parameters<typeof node.api>): Promise<unknown> => (await node.api(...call)).data
await confirmedKeys(settings)
const qemu = `/nodes/${settings.node}/qemu`
const source =
  system === 'debian'
    ? await ensureDebianImage(host, settings.cacheDir)
    : (await ensureGuestImage({ host, cacheDir: settings.cacheDir })).path
const hardware = { memory: '512', serial0: 'socket', scsihw: 'virtio-scsi-pci', boot: 'order=scsi0' }
await task(await api('POST', qemu, { vmid: '100', ...hardware, scsi0: `local:0,import-from=${source}` }))
await api('PUT', '/storage/local', { content: 'images,backup' })
await task(await api('POST', `/nodes/${settings.node}/vzdump`, { vmid: '100', storage: 'local' }))
const [{ volid: archive }] = (await api('GET', `/nodes/${settings.node}/storage/local/content`, {
  content: 'backup',
})) as [{ volid: string }]

const [ready, running, up, read] = [[], [], [], []] as [number[], number[], number[], number[]]
for (let round = 0; round < Number(rounds); round += 1) {
  const vmid = 101 + round
  const began = performance.now()
  const upid = await api('POST', qemu, { vmid: String(vmid), archive, 'live-restore': '1', bwlimit: '1' })
  const isServed = async () => (await serverOf(vmid)) !== undefined && isThere(vmid)
  await waitFor(isServed, { what: 'its disk', timeoutMs: 60_000, everyMs: 5 })
  ready.push(performance.now() - began)
  await task(upid)
  running.push(performance.now() - began)
  const serial = join(settings.runDir, 'guests', String(vmid), 'serial.log')
  await waitFor(() => / login:|READY boots=/.test(readFileSync(serial, 'utf8')), {
    what: `the boot of ${system}`,
    timeoutMs: bootMs,
    everyMs: 100,
  })
  up.push((performance.now() - began) / 1_000)
  read.push(readBy((await serverOf(vmid)) ?? 0) / MiB)
  await task(await api('POST', `${qemu}/${vmid}/status/stop`))
  await task(await api('DELETE', `${qemu}/${vmid}`))
}
table(row(`instant restore of ${system}, ${rounds} rounds`, 'median', 'goal'), [
  row('disk ready, from the call (ms)', median(ready).toFixed(0), '500'),
  row('guest runs, from the call (ms)', median(running).toFixed(0), ''),
  row('guest is up (s)', median(up).toFixed(1), ''),
  row('read of the backup until then (MiB)', median(read).toFixed(1), '100'),
])

async function task(upid: unknown): Promise<void> {
  const path = `/nodes/${settings.node}/tasks/${encodeURIComponent(String(upid))}/status`
  const ended = await waitFor(
    async () => {
      const facts = (await api('GET', path)) as { status: string; exitstatus?: string }
      return facts.status === 'stopped' && facts
    },
    { what: String(upid), timeoutMs: 600_000, everyMs: 5 },
  )
  if (ended.exitstatus !== 'OK') throw new Error(`${String(upid)}: ${ended.exitstatus}`)
}

async function serverOf(vmid: number): Promise<number | undefined> {
  return (await findProcesses((argv) => argv.includes(`--sockets=${settings.runDir}/below/${vmid}`)))[0]
}

/** The server has given its socket to the guest. */
function isThere(vmid: number): boolean {
  return readFileSync('/proc/net/unix', 'utf8').includes(`${settings.runDir}/below/${vmid}/scsi0.sock`)
}

/** Bytes it has read from files: what of the backup it needed, and its own program. */
function readBy(pid: number): number {
  return Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1])
}
