/** What a backup does to the guest meanwhile, whom it tells, and what its log says to other tools. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { BackupCounts } from '#cluster/backup-counts.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { BackupOptions } from '#cluster/backup-options.ts'
import { machine } from '#host/exec.ts'
import type { Host } from '#host/host.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { type BackupGuests, backupGuests } from '#operations/backup/run.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { acquireLocks, heldLocks, releaseLocks } from '#tasks/lock.ts'
import { perform, unwind } from '#tasks/perform.ts'
import { buttonSays, writeButtonDisk } from '../fixtures/guests/power-button.ts'
import { mailSystem, sender } from '../fixtures/mail-system.ts'
import { addDisk, type BackupWorld, backupWorld, nothingOfABackupIn, task } from './backup-world.ts'

const host = machine()

suite('a backup', { timeout: 300_000 }, () => {
  let world: BackupWorld
  let vmid: Vmid
  before(async () => {
    world = await backupWorld()
    const disk = join(world.settings.stateDir, 'button.raw')
    await writeButtonDisk(disk)
    const source = { storage: 'local', vmid: world.id(100), source: disk, format: 'raw' } as const
    const virtio0 = await world.storage.importImage(source)
    const scsi0 = await addDisk(world, 100, 'qcow2', 4 * MiB)
    vmid = await world.define(100, {
      name: 'web',
      virtio0,
      scsi0,
      scsi1: `${await addDisk(world, 100, 'raw', MiB)},backup=0`,
      scsihw: 'virtio-scsi-pci',
      boot: 'order=virtio0',
    })
  })
  after(() => world[Symbol.asyncDispose]())

  const run = async (params: Partial<BackupGuests>, deps: Partial<BackupWorld['deps']> = {}) => {
    const lines: string[] = []
    const all: BackupGuests = { vmids: [100], storage: 'vault', mode: 'snapshot', ...params }
    const log = (line: string) => void lines.push(line)
    const warn = (line: string) => void lines.push(`WARN: ${line}`)
    const outcome = await perform(backupGuests, all, { ...world.deps, ...deps }, memoryJournal(), {
      task,
      log,
      warn,
    }).then(
      () => 'whole',
      (fault: unknown) => (isFault(fault) ? fault.message : Promise.reject(fault as Error)),
    )
    return { outcome, lines, log: lines.join('\n') }
  }
  const boots = async () => {
    const path = join(world.guests.runDirOf(vmid), 'serial.log')
    return (await readFile(path, 'utf8').catch(() => '')).split(buttonSays).length - 1
  }
  const untilUp = () => waitFor(async () => (await boots()) > 0, { what: 'the boot of the guest', timeoutMs: 60_000 })
  const start = async () => {
    if (!(await world.guests.isRunning(vmid))) await world.guests.start(vmid)
    await untilUp()
  }
  /** What QEMU tells of its processors meanwhile. */
  const eventsDuring = async (work: () => Promise<unknown>): Promise<string[]> => {
    const names: string[] = []
    await using monitor = await world.guests.qmp(vmid)
    const end = monitor.onEvent(({ name }) => void (['STOP', 'RESUME'].includes(name) && names.push(name)))
    await work()
    await monitor.execute('query-status')
    end()
    return names
  }
  /** Its QEMU. */
  const processes = () => findProcesses((argv) => argv.some((word) => word.includes(world.guests.runDirOf(vmid))))
  const script = async (name: string, body: string): Promise<string> => {
    const folder = join(world.settings.stateDir, 'hooks')
    await mkdir(folder, { recursive: true, mode: 0o755 })
    const path = join(folder, name)
    await writeFile(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 })
    return path
  }

  test('in mode suspend holds the guest for the moment, and lets it go on', async () => {
    await start()
    const events = await eventsDuring(async () => assert.equal((await run({ mode: 'suspend' })).outcome, 'whole'))
    assert.deepEqual(events, ['STOP', 'RESUME'])
    await nothingOfABackupIn(world, vmid)
    assert.equal(await boots(), 1)
  })

  test('in mode stop shuts the guest down and starts it again', async () => {
    await start()
    const startedBefore = await processes()
    const { outcome, log } = await run({ mode: 'stop' })
    assert.equal(outcome, 'whole')
    assert.match(log, /the guest is shut down[^]*the guest is started again/)
    await untilUp()
    assert.notDeepEqual(await processes(), startedBefore)
    const [newest] = (await world.backup.list({ storage: 'vault' })).slice(-1)
    assert.equal(newest?.manifest?.facts.mode, 'stop')
  })

  test('in mode stop starts the guest again also when the backup fails', async () => {
    await start()
    const broken = await script('broken', '[ "$1" != pre-stop ] || exit 0; [ "$1" != backup-end ] || exit 7')
    const before = await processes()
    const { outcome } = await run({ mode: 'stop', script: broken })
    assert.match(outcome, /broken failed with exit code 7/)
    await untilUp()
    assert.notDeepEqual(await processes(), before)
    // And when nothing of it could be read.
    const noDisk = { storage: failingStorage(world) }
    assert.match((await run({ mode: 'stop' }, noDisk)).outcome, /injected/)
    await untilUp()
  })

  test('tells root’s script of every phase, in order, with the guest and the backup', async () => {
    await start()
    const said = join(world.settings.stateDir, 'said')
    const hook = await script('hook', `echo "$*|$STOREID|$VMTYPE|$HOSTNAME|$TARGET" >> ${said}; echo "hook says $1"`)
    const { outcome, log } = await run({ mode: 'stop', script: hook })
    assert.equal(outcome, 'whole')
    const lines = (await readFile(said, 'utf8')).trim().split('\n')
    assert.deepEqual(
      lines.map((line) => line.split('|')[0]),
      [
        'job-init',
        'job-start',
        'backup-start stop 100',
        'pre-stop stop 100',
        'pre-restart stop 100',
        'post-restart stop 100',
        'backup-end stop 100',
        'log-end stop 100',
        'job-end',
      ],
    )
    assert.match(lines[6] ?? '', /\|vault\|qemu\|web\|vault:backup\/vm\/100\//)
    assert.match(log, /INFO: hook says pre-restart/)
  })

  test('is kept from beginning by a script that says no, which hears of that', async () => {
    const said = join(world.settings.stateDir, 'no')
    const no = await script('no', `echo "$1" >> ${said}; [ "$1" != backup-start ]`)
    const count = (await world.backup.list({ storage: 'vault' })).length
    assert.match((await run({ script: no })).outcome, /no failed with exit code 1/)
    assert.equal((await world.backup.list({ storage: 'vault' })).length, count)
    assert.deepEqual((await readFile(said, 'utf8')).trim().split('\n').slice(2), [
      'backup-start',
      'backup-abort',
      'log-end',
      'job-end',
    ])
  })

  test('runs no script that others than root could change', async () => {
    const good = await script('good', 'exit 0')
    await chmod(good, 0o777)
    assert.match((await run({ script: good })).outcome, /others than root can change '.*good'/)
    await chmod(good, 0o644)
    assert.match((await run({ script: good })).outcome, /not executable/)
    await chmod(good, 0o755)
    await chmod(join(good, '..'), 0o777)
    assert.match((await run({ script: good })).outcome, /others than root can change '.*hooks'/)
    await chmod(join(good, '..'), 0o755)
    await host.run(['chown', '65534', good])
    const link = join(world.settings.stateDir, 'link')
    await symlink(good, link)
    assert.match((await run({ script: link })).outcome, /others than root can change/)
    assert.match((await run({ script: '/no/such/script' })).outcome, /does not exist/)
  })

  test('says in its log what other tools look for', async () => {
    const { lines, outcome } = await run({
      vmids: [100, 199],
      notesTemplate: '{{guestname}}',
      protected: true,
      jobId: 'x',
    })
    assert.equal(outcome, 'job errors')
    const log = lines.join('\n')
    for (const line of [
      /^INFO: starting new backup job: vzdump 100 199 --mode snapshot --storage vault --job-id x --notes-template '\{\{guestname\}\}' --protected 1$/m,
      /^INFO: Starting Backup of VM 100 \(qemu\)$/m,
      /^INFO: Backup started at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/m,
      /^INFO: status = running$/m,
      /^INFO: VM Name: web$/m,
      /^INFO: include disk 'virtio0' 'local:100\/vm-100-disk-0\.raw' 4M$/m,
      /^INFO: exclude disk 'scsi1' \(/m,
      /^INFO: backup mode: snapshot$/m,
      /^INFO: Finished Backup of VM 100 \(\d\d:\d\d:\d\d\)$/m,
      /^ERROR: Backup of VM 199 failed - .*does not exist$/m,
      /^INFO: Backup job finished with errors$/m,
    ]) {
      assert.match(log, line)
    }
    const good = await run({})
    assert.match(good.log, /^INFO: Backup job finished successfully$/m)
  })

  test('is told by mail to those who want to know, where there is a mail system', async () => {
    await using mail = await mailSystem()
    const deps = { host: mail.host }
    const to = ['ops@example.org', 'web@example.org']
    const notify = { mailTo: to, on: 'failure' } as const
    await new BackupOptions(world.store).change(() => ({
      webhook: { url: 'http://127.0.0.1:1/?key=hush', on: 'always' },
    }))
    await run({ notify }, deps)
    assert.equal(mail.received.length, 0)
    await run({ notify, vmids: [100, 199] }, deps)
    await run({ notify: { ...notify, on: 'always' } }, deps)
    await run({ notify, script: await script('準備', '[ "$1" != job-start ]') }, deps)
    await new BackupOptions(world.store).change(() => ({}))
    const { node } = task
    assert.deepEqual(
      mail.received.map((one) => [one.from, one.to, one.named, one.defects, one.headers.subject]),
      ['FAILED', 'successful', 'FAILED'].map((how) => [sender, to, to, [], `backup on ${node}: ${how}`]),
    )
    const [failed, , unready] = mail.received
    assert.match(failed?.text ?? '', /^VM 100: ok, vault:backup[^]*^VM 199: FAILED, .*does not exist$/m)
    assert.match(unready?.text ?? '', /準備 failed with exit code 1:/m)
    for (const { text, headers } of mail.received) assert.doesNotMatch(`${text}${JSON.stringify(headers)}`, /hush/)

    const without: Host = {
      run: (argv, options) => host.run(argv[0] === 'sendmail' ? ['no-such-program'] : argv, options),
    }
    mail.refuse('450 4.2.0 come back later')
    const refused = await run({ notify, vmids: [100, 199] }, deps)
    assert.match(refused.log, /^WARN: no mail goes to ops@example\.org, web@example\.org: .*come back later/m)
    const { log, outcome } = await run({ notify: { ...notify, on: 'always' } }, { host: without })
    assert.equal(outcome, 'whole')
    assert.match(log, /no mail goes to ops@example\.org, web@example\.org: this node has no mail system/)
  })

  test('is told to the webhook of the node when it fails, also before any guest had its turn', async () => {
    const told: { outcome: string; reason?: string; job?: string; guests: { vmid: number; outcome: string }[] }[] = []
    const server = createServer(async (request, response) => {
      let body = ''
      for await (const part of request) body += String(part)
      told.push(JSON.parse(body))
      response.writeHead(204).end()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`
    const options = new BackupOptions(world.store)
    await options.change(() => ({ webhook: { url, on: 'failure' } }))
    const settings = { ...world.settings, fetchNetworks: ['127.0.0.1'] }
    try {
      await run({}, { settings })
      assert.equal(told.length, 0)
      assert.match(
        (await run({ vmids: [100, 199] }, { settings })).log,
        /^INFO: told http:\/\/127\.0\.0\.1:\d+\/hook$/m,
      )
      assert.deepEqual(
        told[0]?.guests.map(({ vmid, outcome }) => [vmid, outcome]),
        [
          [199, 'failed'],
          [100, 'successful'],
        ],
      )
      await run({ storage: 'no-such', jobId: 'nightly' }, { settings })
      assert.deepEqual([told[1]?.outcome, told[1]?.job, told[1]?.guests], ['failed', 'nightly', []])
      assert.match(told[1]?.reason ?? '', /no-such/)
      const broken = await script('broken-job', '[ "$1" != job-start ]')
      await run({ script: broken }, { settings })
      assert.match(told[2]?.reason ?? '', /broken-job failed with exit code 1/)
      await options.change(({ webhook }) => (webhook ? { webhook: { ...webhook, on: 'always' } } : {}))
      await run({}, { settings })
      assert.deepEqual([told[3]?.outcome, told.length], ['successful', 4])
      // Not asked, for the owner has not allowed it; the backup is there all the same.
      const { outcome, log } = await run({})
      assert.deepEqual([outcome, told.length], ['whole', 4])
      assert.match(log, /^WARN: http:.* is not told: '127\.0\.0\.1' is an address of this machine/m)
    } finally {
      await options.change(() => ({}))
      server.closeAllConnections()
      server.close()
    }
  })

  test('is told of by whoever finds that its process has died', async () => {
    const sent: string[] = []
    const withMail: Host = {
      run: async (argv, options) => {
        if (argv[0] !== 'sendmail') return host.run(argv, options)
        sent.push(Buffer.from(String(options?.input).split('\n\n')[1] ?? '', 'base64').toString())
        return { code: 0, stdout: '', stderr: '' }
      },
    }
    const journal = memoryJournal([
      { event: 'begin', step: 'guests' },
      { event: 'done', step: 'guests', result: { vmids: [100], running: [] } },
      { event: 'begin', step: 'backups' },
    ])
    const notify = { mailTo: ['a@example.org'], on: 'failure' } as const
    const params: BackupGuests = { vmids: [100], storage: 'vault', mode: 'snapshot', notify }
    const dead = { ...task, upid: 'UPID:dead' }
    await unwind(backupGuests, params, { ...world.deps, host: withMail }, journal, { task: dead })
    assert.equal(sent.length, 1)
    assert.match(sent[0] ?? '', /FAILED[^]*its process ended unexpectedly/)
  })

  test('waits until no more back up on the node than may at once, and says for whom', async () => {
    const options = new BackupOptions(world.store)
    await options.change(() => ({ atOnce: 2 }))
    const hold = (number: number) =>
      acquireLocks(world.store, [`backup/${number}`], `UPID:other${number}`, { timeoutMs: 0 })
    const release = (number: number) => releaseLocks(world.store, (holder) => holder === `UPID:other${number}`)
    await hold(1)
    assert.doesNotMatch((await run({})).log, /waiting for/)
    await hold(2)
    const late = await run({ lockWait: 0 })
    assert.match(late.outcome, /^other backups of this node go on: UPID:other1, UPID:other2$/)
    const sleep = async (ms: number, signal?: AbortSignal) => {
      await release(2)
      await systemClock.sleep(ms, signal)
    }
    const { outcome, log } = await run({}, { clock: { ...systemClock, sleep } })
    assert.equal(outcome, 'whole')
    assert.match(log, /^INFO: 2 at once back up on this node; waiting for UPID:other1, UPID:other2$/m)
    await release(1)
    await options.change(() => ({}))
    assert.deepEqual(await heldLocks(world.store), [])
  })

  test('waits its turn for the disks when it is told to', async () => {
    const rank = () => spawnSync('ionice', ['--pid', String(process.pid)], { encoding: 'utf8' }).stdout.trim()
    const before = rank()
    const during = new Set<string>()
    const now = () => (during.size < 2 && during.add(rank()), systemClock.now())
    await run({ ioPriority: 6 }, { clock: { ...systemClock, now } })
    assert.ok(during.has('best-effort: prio 6'), [...during].join(', '))
    assert.equal(rank(), before)
  })

  test('reads with as many readers as it is given, and finds the same', async () => {
    await run({ readsAhead: 1 })
    await run({ readsAhead: 32 })
    const [one, many] = (await world.backup.list({ storage: 'vault' })).slice(-2)
    const digests = (listed: typeof one) => listed?.manifest?.disks.map(({ digest }) => digest)
    assert.deepEqual(digests(one), digests(many))
    assert.equal(digests(one)?.length, 2)
  })

  test('waits for a guest that is held no longer than it is told', async () => {
    await acquireLocks(world.store, ['guest/100'], 'UPID:other', { signal: new AbortController().signal, timeoutMs: 0 })
    const startedMs = systemClock.monotonic()
    const { outcome } = await run({ lockWait: 0 })
    assert.match(outcome, /guest\/100|held|lock/i)
    assert.ok(systemClock.monotonic() - startedMs < 10_000)
    await releaseLocks(world.store, (holder) => holder === 'UPID:other')
  })

  test('of a job is tried once more when what it failed of has passed, and says so', async () => {
    await acquireLocks(world.store, ['guest/100'], 'UPID:other', { signal: new AbortController().signal, timeoutMs: 0 })
    const slept: number[] = []
    const sleep = async (ms: number, signal?: AbortSignal) => {
      if (ms < 60_000) return systemClock.sleep(ms, signal)
      slept.push(ms)
      await releaseLocks(world.store, (holder) => holder === 'UPID:other')
    }
    const { outcome, log } = await run({ lockWait: 0, jobId: 'nightly' }, { clock: { ...systemClock, sleep } })
    assert.equal(outcome, 'whole')
    assert.deepEqual(slept, [60_000])
    assert.match(log, /^INFO: VM 100 is tried again in 60 s: can't lock 'guest\/100': held by task UPID:other$/m)
    assert.equal((await new BackupCounts(world.store).all()).get('storage/vault')?.retries, 1)
    // What stays as it is fails at once.
    assert.match((await run({ vmids: [999], jobId: 'nightly' })).outcome, /999/)
    assert.deepEqual(slept, [60_000])
  })
})

/** The guest's disks cannot be found any more once it is down. */
function failingStorage(world: BackupWorld): BackupWorld['deps']['storage'] {
  return new Proxy(world.storage, {
    get(storage, name) {
      if (name === 'layers') return async () => Promise.reject(new Fault('failed', 'injected'))
      const value: unknown = Reflect.get(storage, name, storage)
      return typeof value === 'function' ? value.bind(storage) : value
    },
  })
}
