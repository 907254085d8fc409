/**
 * Entry of the process that serves what disks of a guest still lack, from the backup they are restored from. It holds the
 * backup open, so nothing it needs can be collected as garbage, and ends when it is told to.
 */
import { parseArgs } from 'node:util'
import { NodeKeys } from '#backup/node-keys.ts'
import { Places } from '#backup/places.ts'
import { BackupService } from '#backup/service.ts'
import { systemClock } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { messageOf } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { ServedDisk } from '#datastore/restore/served-disk.ts'
import { diskSocket, unreadableMark } from '#host/nbd/disk-server.ts'
import { exportDisk } from '#host/nbd/nbd-export.ts'
import { machine } from '#host/exec.ts'
import { settingsFrom, storePathOf } from '#settings.ts'
import { StorageService } from '#storage/service.ts'
import { openSqliteStore } from '#store/sqlite.ts'

/** Who asks again and again for what is damaged must not fill the disk of the node. */
const saidMaximum = 1_000

const say = (line: string) => process.stderr.write(`${line}\n`)

try {
  await serve()
  process.exit(0)
} catch (fault) {
  say(messageOf(fault))
  process.exit(1)
}

async function serve(): Promise<void> {
  const ended = untilSignal()
  const text = { type: 'string' } as const
  const { values, positionals } = parseArgs({
    options: { sockets: text, uid: text, from: text },
    allowPositionals: true,
  })
  const log = createLog(say)
  await using scope = new AsyncDisposableStack()
  const settings = settingsFrom()
  const base = { settings, clock: systemClock, random: systemRandom, log, host: machine() }
  // No more of a node than it takes: the guest waits for this process.
  const store = scope.use(await openSqliteStore(storePathOf(settings), { isChecked: false }))
  const storage = new StorageService({ ...base, store })
  const places = new Places({ ...base, waiting: 'guest' })
  const backup = new BackupService({ ...base, storage, places, keys: new NodeKeys(base) })
  const reader = scope.use(await backup.open(asVolumeId(values.from ?? '')))
  let said = 0
  for (const drive of positionals) {
    const disk = new ServedDisk(await reader.openDisk(drive), {
      chunkBytes: reader.chunkBytes,
      onDamage({ offset, length, why }) {
        said += 1
        if (said <= saidMaximum)
          say(`${unreadableMark}${drive}: ${length} bytes at ${offset}: ${why.replaceAll('\n', ' ')}`)
      },
    })
    const socket = diskSocket(values.sockets ?? '', drive)
    scope.use(await exportDisk({ socket, uid: Number(values.uid), disk, onError: () => {} }))
  }
  await ended
}

function untilSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve())
  })
}
