/** What a backup puts into a running QEMU goes when it is undone, wherever it died. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { messageOf } from '#base/fault.ts'
import { asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import { makeFleecing } from '#operations/backup/fleecing.ts'
import { leaveGuest } from '#operations/backup/guest-source.ts'
import { exportDisks, insertFilters, prepareFilters } from '#operations/backup/point-in-time.ts'
import { addDisk, backupWorld, nothingOfABackupIn } from './backup-world.ts'
import type { GuestWorld } from './qemu-world.ts'

test('a guest held or frozen by a backup that was killed goes on when the backup is undone', async () => {
  await using world = await backupWorld()
  const vmid = await world.define(100, { scsi0: await addDisk(world, 100, 'raw', 2 * MiB), scsihw: 'virtio-scsi-pci' })
  await world.guests.start(vmid)
  {
    await using monitor = await world.guests.qmp(vmid)
    const held = await makeFleecing(world.deps, vmid, [{ drive: 'scsi0', volid: await volumeOf(world, vmid) }])
    await prepareFilters(monitor, held)
    await insertFilters(monitor, held, false)
    // As the processors' hold leaves it when its process dies in the middle.
    await monitor.execute('blockdev-add', { driver: 'null-co', 'node-name': 'backup-mark-resume' })
    await monitor.execute('stop')
  }
  await leaveGuest(world.deps, vmid)
  await nothingOfABackupIn(world, vmid)
  await leaveGuest(world.deps, vmid)
})

test('a backup that dies after any of its requests to QEMU leaves nothing there once it is undone', async () => {
  await using world = await backupWorld()
  const vmid = await world.define(100, { scsi0: await addDisk(world, 100, 'raw', 2 * MiB), scsihw: 'virtio-scsi-pci' })
  await world.guests.start(vmid)
  const socket = join(world.guests.runDirOf(vmid), 'backup-nbd.sock')
  const disks = [{ drive: 'scsi0', volid: await volumeOf(world, vmid) }]
  let isWhole = false
  for (let requests = 0; !isWhole; requests += 1) {
    const held = await makeFleecing(world.deps, vmid, disks)
    {
      await using monitor = await world.guests.qmp(vmid)
      const dying = diesAfter(monitor, requests)
      const making = async () => {
        await prepareFilters(dying, held)
        await insertFilters(dying, held, false)
        await exportDisks(dying, held, socket)
      }
      const outcome = await making().then(() => 'whole', messageOf)
      assert.match(outcome, /^(whole|it died)$/)
      isWhole = outcome === 'whole'
      assert.ok(!isWhole || requests > 5)
    }
    await leaveGuest(world.deps, vmid)
    await nothingOfABackupIn(world, vmid)
    await using monitor = await world.guests.qmp(vmid)
    assert.deepEqual(await monitor.execute('query-jobs'), [], `after ${requests} requests`)
  }
})

function diesAfter(monitor: QmpClient, requests: number): QmpClient {
  let left = requests
  return new Proxy(monitor, {
    get(client, name) {
      const value: unknown = Reflect.get(client, name, client)
      if (name !== 'execute') return value
      return (...request: Parameters<QmpClient['execute']>) => {
        left -= 1
        return left < 0 ? Promise.reject(new Error('it died')) : client.execute(...request)
      }
    },
  })
}

async function volumeOf(world: GuestWorld, vmid: Vmid): Promise<VolumeId> {
  return asVolumeId(((await world.guests.config(vmid)).options.scsi0 ?? '').split(',')[0] ?? '')
}
