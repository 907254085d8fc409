/** A running guest goes on in a fresh QEMU: it notices nothing, and neither does who talks to it, nor the next backup. */
import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { asVolumeId, type Vmid } from '#base/ids.ts'
import { restoreDisk } from '#datastore/restore/restore-disk.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { machine } from '#host/exec.ts'
import { links } from '#host/network/ip.ts'
import { findProcesses, statOf } from '#host/programs/proc.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { renewGuest } from '#operations/guest/renew.ts'
import { namesOf } from '#network/names.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { memoryTarget } from '../fixtures/datastore.ts'
import { scsiDisk } from '../fixtures/guests/scsi-disk.ts'
import { addDisk, type BackupWorld, backupWorld, contentOf, pathOf, task } from './backup-world.ts'
import { said, untilAgentAnswers } from './inside.ts'
import { type GuestWorld, guestWorld } from './qemu-world.ts'

const host = machine()
const mac = 'BC:24:11:00:0A:01'
const dataDrives = ['scsi1', 'virtio0'] as const

suite('a running guest that is renewed', { timeout: 600_000 }, () => {
  let world: BackupWorld
  let vmid: Vmid
  let bridge: string

  before(async () => {
    world = await backupWorld()
    bridge = await world.addBridge()
    const image = await ensureGuestImage({ host, cacheDir: world.settings.cacheDir })
    const source = image.path
    const system = await world.storage.importImage({ storage: 'local', vmid: world.id(100), source, format: 'qcow2' })
    const [scsi1, virtio0] = [await addDisk(world, 100, 'qcow2', 24 * MiB), await addDisk(world, 100, 'raw', 24 * MiB)]
    vmid = await world.define(100, {
      memory: '192',
      agent: '1',
      scsihw: 'virtio-scsi-pci',
      scsi0: `${system},backup=0`,
      scsi1: `${scsi1},serial=QCOW`,
      virtio0: `${virtio0},serial=RAW`,
      net0: `virtio=${mac},bridge=${bridge}`,
      boot: 'order=scsi0',
    })
    await world.guests.start(vmid)
    await untilAgentAnswers(world, vmid)
  })
  after(() => world[Symbol.asyncDispose]())

  async function sh(script: string): Promise<string> {
    await using agent = await world.guests.agent(vmid)
    return await said(agent, script)
  }

  async function renew(): Promise<{ log: string; downtimeMs: number }> {
    const log: string[] = []
    const around = { task, log: (line: string) => void log.push(line) }
    const done = await perform(renewGuest, { vmid }, { guests: world.guests }, memoryJournal(), around)
    return { log: log.join('\n'), downtimeMs: done.move.downtimeMs }
  }

  const uptime = async () => Number(await sh('cut -d. -f1 /proc/uptime'))
  const count = async () => Number(await sh('cat /m/n'))

  /** Backs up, and holds each disk of the backup against the image, to which nobody writes. @returns how each was read */
  async function backUp(): Promise<string[]> {
    const log: string[] = []
    const [volid = ''] = await world.run({ vmids: [vmid] }, log)
    await using reader = await world.backup.open(asVolumeId(volid))
    for (const drive of dataDrives) {
      const target = memoryTarget(reader.disk(drive).sizeBytes)
      await restoreDisk(reader, drive, target)
      const reference = await contentOf(world, vmid, drive)
      assert.ok(target.content.equals(reference), `${drive} of ${volid} is another:\n${log.join('\n')}`)
    }
    return dataDrives.map((drive) => reader.disk(drive).reading?.how ?? '')
  }

  /** Something in the guest writes to both disks, here and there, until it is told to stop. */
  async function writing(): Promise<{ stop: () => Promise<number> }> {
    const write = (device: string) =>
      `dd if=/dev/urandom of=${device} bs=4k count=2 seek=$((i * 7919 % 6000)) conv=notrunc,fsync`
    const round = [scsiDisk(1), '/dev/vda'].map(write).join('; ')
    await sh(
      `rm -f /m/stop /m/done; (i=1; while [ ! -e /m/stop ]; do ${round}; i=$((i+1)); echo $i > /m/i; done; mv /m/i /m/done) >/dev/null 2>&1 </dev/null &`,
    )
    const rounds = async () => Number(await sh('cat /m/i 2>/dev/null || echo 0'))
    await waitFor(async () => (await rounds()) > 2, { what: 'the guest to write', timeoutMs: 60_000 })
    return {
      stop: async () => {
        const done = await sh('touch /m/stop; while [ ! -e /m/done ]; do sleep 0.1; done; sync; cat /m/done')
        return Number(done)
      },
    }
  }

  test('it counts on, its connections live on, and one process is left', async () => {
    await sh('mkdir -p /m; mount -t tmpfs none /m; echo 0 > /m/n')
    await sh(
      '(n=0; while :; do n=$((n+1)); echo $n > /m/next; mv /m/next /m/n; sleep 0.1; done) >/dev/null 2>&1 </dev/null &',
    )
    await sh('nc -lp 7777 -e cat >/dev/null 2>&1 </dev/null &')
    const lease = () => world.network.addressOf(mac, { bridge })
    const address = await waitFor(lease, { what: 'an address', timeoutMs: 60_000 })
    const socket = await waitFor(() => connected(address, 7777), { what: 'an open port', timeoutMs: 60_000 })
    let heard = ''
    socket.on('data', (part) => (heard += part.toString()))
    const echoed = async (text: string) => {
      socket.write(text)
      await waitFor(() => heard.endsWith(text), { what: `the echo of ${text}`, timeoutMs: 20_000 })
    }
    await echoed('before')
    const status = async () => {
      const { state } = await world.guests.status(vmid)
      return state.state === 'running' ? state : assert.fail('it is stopped')
    }
    const [old, from, upThen, shown] = [
      await world.guests.listenerOf(vmid),
      await count(),
      await uptime(),
      await status(),
    ]
    const console = () => readFile(join(world.guests.runDirOf(vmid), 'serial.log'), 'utf8')
    const printed = await console()
    const { log, downtimeMs } = await renew()
    await echoed('after')
    socket.destroy()
    const fresh = await world.guests.listenerOf(vmid)
    assert.notEqual(fresh.pid, old.pid)
    assert.ok((await count()) >= from, 'the counter began anew')
    assert.ok((await uptime()) >= upThen)
    assert.ok((await status()).uptimeSeconds >= shown.uptimeSeconds, 'it is said to have been started anew')
    assert.ok(downtimeMs > 0 && downtimeMs < 10_000, `${downtimeMs} ms`)
    assert.match(log, new RegExp(`goes on as process ${fresh.pid}; it stood still for ${downtimeMs} ms`))
    assert.equal(await statOf(old.pid), undefined)
    // What it printed before is still there, and what it prints now comes after it.
    await sh('echo still here > /dev/ttyS0')
    await waitFor(async () => /still here/.test(await console()), { what: 'the console', timeoutMs: 20_000 })
    assert.ok(printed.length > 0 && (await console()).startsWith(printed))
  })

  test('the next backup reads what was written, before, while and after it moved, from images of both kinds', async () => {
    assert.deepEqual(await backUp(), ['scan', 'scan'])
    for (let round = 0; round < 2; round += 1) {
      const writer = await writing()
      await renew()
      assert.ok((await writer.stop()) > 3)
      assert.deepEqual(await backUp(), ['changes', 'changes'])
    }
    const { path } = await pathOf(world, vmid, 'scsi1')
    await host.run(['qemu-img', 'check', '--force-share', path])
  })
})

/** Nothing while nobody listens there. */
async function connected(address: string, port: number): Promise<Socket | undefined> {
  const socket = connect(port, address)
  try {
    await once(socket, 'connect')
    return socket
  } catch {
    return undefined
  }
}

suite('renewing keeps the promises of every operation', () => {
  let world: GuestWorld
  let vmid: Vmid
  before(async () => {
    world = await guestWorld({ forgetful: true })
    await world.addStorage()
    const bridge = await world.addBridge()
    const volid = await world.storage.allocate({
      storage: 'local',
      vmid: world.id(100),
      sizeBytes: MiB,
      format: 'qcow2',
    })
    vmid = await world.define(100, { scsihw: 'virtio-scsi-pci', scsi0: volid, net0: `virtio=${mac},bridge=${bridge}` })
  })
  after(() => world[Symbol.asyncDispose]())

  const place = async () => {
    if (!(await world.guests.isRunning(vmid))) await world.guests.start(vmid)
    const { pid } = await world.guests.listenerOf(vmid)
    return {
      params: { vmid },
      deps: { guests: world.guests },
      look: async () => ({
        isRenewed: (await world.guests.listenerOf(vmid)).pid !== pid,
        ...(await remains(world, vmid)),
      }),
      [Symbol.asyncDispose]: async () => {},
    }
  }
  // From the moment the guest is in the other process on nothing is taken back. Deaths have a test of their own.
  everyStepFails(renewGuest, place, { isFinal: true, withCrashes: false })
})

/** All of a running guest that there is to see from outside. */
async function remains({ settings, guests, store }: GuestWorld, vmid: Vmid): Promise<object> {
  const { isOurLink } = namesOf(settings.instance)
  const ours = (await links(host)).filter(isOurLink)
  const taps = ours.filter(({ kind }) => kind === 'tun')
  const cgroups = await Cgroups.detect()
  await using monitor = await guests.qmp(vmid)
  const { running } = await guests.config(vmid)
  return {
    running,
    status: (await monitor.execute<{ status: string }>('query-status')).status,
    // Wherever they were born, and none that is dead and not buried.
    processes: (await findProcesses((argv) => argv.some((part) => part.includes(guests.runDirOf(vmid))))).length,
    limits: await Promise.all(
      cgroups.directoriesOf(guests.groupOf(vmid)).flatMap((directory) => {
        const of = (file: string) => readFile(join(directory, file), 'utf8').catch(() => undefined)
        return [of('memory.max'), of('memory.limit_in_bytes')]
      }),
    ),
    taps: taps.map(({ isUp, master }) => ({ isUp, master })),
    keys: (await store.list('')).filter(({ key }) => !key.startsWith('network/taps/')).map(({ key }) => key),
    tapRecords: (await store.list('network/taps/')).map(({ value }) => value),
    files: (await readdir(join(settings.runDir, 'guests'))).toSorted(),
    runDir: (await readdir(guests.runDirOf(vmid))).toSorted(),
  }
}
