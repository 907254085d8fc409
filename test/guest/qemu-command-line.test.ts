/** The golden command lines are only worth something if a real QEMU takes them. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { formatSize, MiB } from '#base/bytes.ts'
import type { Options } from '#guests/config.ts'
import { driveOf, drivesOf, isOnBus, printDrive, wishOf } from '#guests/qemu/drive.ts'
import { nicNames } from '#guests/qemu/nic.ts'
import { mayUseRings } from '#host/native.ts'
import { guestWorld } from './qemu-world.ts'

const golden = join(import.meta.dirname, '../../src/guests/qemu/golden')

function readConf(file: string): Options {
  const lines = readFileSync(join(golden, file), 'utf8').trim().split('\n')
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]))
}

for (const file of readdirSync(golden).filter((name) => name.endsWith('.conf'))) {
  test(`a real QEMU starts with the devices of ${file} and shows them`, async () => {
    await using world = await guestWorld()
    await world.addStorage()
    const conf: Record<string, string> = readConf(file)
    // Where nodes or modules must come to a sum it stays.
    if (conf.numa === undefined) conf.memory = '32'
    if (conf.balloon !== undefined && conf.balloon !== '0') conf.balloon = '16'
    for (const drive of drivesOf(conf)) {
      if (wishOf(drive).kind !== 'volume') continue
      if (drive.isCdrom) conf[drive.name] = 'none,media=cdrom'
      else {
        const format = drive.file.endsWith('qcow2') ? 'qcow2' : 'raw'
        const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes: MiB, format })
        conf[drive.name] = printDrive(driveOf(drive.name, conf[drive.name] ?? ''), {
          file: volid,
          size: formatSize(MiB),
        })
      }
    }
    const bridge = await world.addBridge()
    for (const name of nicNames(conf)) conf[name] = (conf[name] ?? '').replace('bridge=vmbr0', `bridge=${bridge}`)
    const vmid = await world.define(100, conf)
    await world.guests.start(vmid)
    await using monitor = await world.guests.qmp(vmid)
    const devices = await monitor.execute<{ name: string }[]>('qom-list', { path: '/machine/peripheral' })
    const ids = devices.map(({ name }) => name)
    for (const name of Object.keys(conf).filter((key) => /^(scsi|virtio|ide|sata|net|virtiofs)\d+$/.test(key))) {
      assert.ok(ids.includes(name), `${name} is not among ${ids.join(' ')}`)
    }
    const nodes = await monitor.execute<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true })
    for (const drive of drivesOf(conf)) {
      if (wishOf(drive).kind === 'volume' && drive.name !== 'tpmstate0')
        assert.ok(nodes.some((node) => node['node-name'] === `drive-${drive.name}`))
    }
    const { state } = await world.guests.status(vmid)
    const open = `/proc/${state.state === 'running' ? state.pid : 0}/fd`
    const hasRing = readdirSync(open).some((fd) => /io_uring/.test(targetOf(`${open}/${fd}`)))
    const isUsual = drivesOf(conf).some(
      (drive) => wishOf(drive).kind === 'volume' && isOnBus(drive) && drive.values.aio === undefined,
    )
    assert.equal(hasRing, isUsual && mayUseRings())
  })
}

function targetOf(link: string): string {
  try {
    return readlinkSync(link)
  } catch {
    // Closed meanwhile.
    return ''
  }
}
