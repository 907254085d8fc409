/**
 * Files that a live guest writes at random, before, between and during incremental backups: each backup is held against a
 * copy of the disks that was taken while the guest's file systems were frozen.
 */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { asVolumeId, type Vmid } from '#base/ids.ts'
import { restoreDisk } from '#datastore/restore/restore-disk.ts'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { memoryTarget } from '../fixtures/datastore.ts'
import { scsiDisk } from '../fixtures/guests/scsi-disk.ts'
import { type BackupWorld, backupWorld, contentOf } from './backup-world.ts'
import { said, untilAgentAnswers } from './inside.ts'

const host = machine()
const drives = { scsi1: 'raw', scsi2: 'qcow2' } as const
const names = ['scsi1', 'scsi2'] as const
const [rounds, acts] = [4, 12]

async function worldWithFiles(): Promise<{ readonly world: BackupWorld; readonly vmid: Vmid }> {
  const world = await backupWorld()
  const { cacheDir, stateDir } = world.settings
  const image = await ensureGuestImage({ host, cacheDir })
  const imported = (source: string, format: 'raw' | 'qcow2') =>
    world.storage.importImage({ storage: 'local', vmid: world.id(100), source, format })
  const empty = join(stateDir, 'empty.raw')
  await host.run(['truncate', '--size', '48M', empty])
  await host.run(['mkfs.ext4', '-q', empty])
  const vmid = await world.define(100, {
    memory: '192',
    // The test freezes by itself, and looks at the disks meanwhile.
    agent: '1,freeze-fs=0',
    scsihw: 'virtio-scsi-pci',
    scsi0: `${await imported(image.path, 'qcow2')},backup=0`,
    scsi1: await imported(empty, drives.scsi1),
    scsi2: `${await imported(empty, drives.scsi2)},discard=on`,
    boot: 'order=scsi0',
  })
  await world.guests.start(vmid)
  await untilAgentAnswers(world, vmid)
  return { world, vmid }
}

/** A file that comes, changes somewhere, is cut, is renamed or goes; now and then what is free is given back. */
function someActs(): string {
  const act = (): string => {
    const folder = `/mnt/${names[randomInt(2)]}`
    const [file, other] = [`${folder}/f${randomInt(12)}`, `${folder}/f${randomInt(12)}`]
    const [kind, size, at] = [randomInt(10), 1 + randomInt(300), randomInt(2_000)]
    if (kind < 6) return `dd if=/dev/urandom of=${file} bs=1k count=${size} seek=${at} conv=notrunc 2> /dev/null`
    if (kind === 6) return `rm -f ${file}`
    if (kind === 7) return `[ ! -e ${file} ] || mv ${file} ${other}`
    if (kind === 8) return `truncate -s ${at}k ${file}`
    return `fstrim ${folder} 2> /dev/null || true`
  }
  return Array.from({ length: acts }, act).join('; ')
}

test('what is restored is what the disks of a live guest held when it was frozen', { timeout: 600_000 }, async () => {
  const { world, vmid } = await worldWithFiles()
  await using _ = world
  const inside = async (script: string) => {
    await using agent = await world.guests.agent(vmid)
    return await said(agent, script)
  }
  for (const unit of [1, 2]) await inside(`mkdir -p /mnt/scsi${unit}; mount ${scsiDisk(unit)} /mnt/scsi${unit}`)
  // Somebody writes all the time, also while backups read.
  const busy = (folder: string) => `dd if=/dev/urandom of=${folder}/busy bs=4k count=64 seek=$((n % 50 * 64)) conv=notrunc,fsync 2> /dev/null` // prettier-ignore
  const loop = `n=0; while :; do n=$((n + 7)); ${busy('/mnt/scsi1')}; ${busy('/mnt/scsi2')}; sleep 0.05; done`
  await inside(`(${loop}) > /dev/null 2>&1 & echo begun`)
  let readByChanges = 0
  for (let round = 0; round < rounds; round += 1) {
    await inside(someActs())
    await world.guests.agentExecute(vmid, 'guest-fsfreeze-freeze')
    const frozen = new Map<string, Buffer>()
    for (const name of names) frozen.set(name, await contentOf(world, vmid, name))
    const log: string[] = []
    const backup = world.run({ vmids: [100], bwlimit: 8 * KiB }, log)
    const isTaken = () => log.some((line) => line.includes('of one moment'))
    await Promise.race([backup, waitFor(isTaken, { what: 'the moment', timeoutMs: 60_000, everyMs: 5 })])
    await world.guests.agentExecute(vmid, 'guest-fsfreeze-thaw')
    const [volid = ''] = await backup
    await using reader = await world.backup.open(asVolumeId(volid))
    for (const [name, expected] of frozen) {
      const target = memoryTarget(48 * MiB)
      await restoreDisk(reader, name, target)
      assert.ok(target.content.equals(expected), `${name} in round ${round} is another:\n${log.join('\n')}`)
      const { how } = reader.disk(name).reading ?? {}
      assert.equal(how, round === 0 ? 'scan' : 'changes', `${name} in round ${round}`)
      if (how === 'changes') readByChanges += 1
      assert.ok(!(await contentOf(world, vmid, name)).equals(expected), 'the guest did not write meanwhile')
    }
  }
  assert.equal(readByChanges, 2 * (rounds - 1))
})
