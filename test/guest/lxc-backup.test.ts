/** Backups of real containers: in every mode, restored in every way, and what is left of both when they die. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, afterEach, before, suite, test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { MiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { messageOf } from '#base/fault.ts'
import { asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { mountNames, volumesIn } from '#guests/lxc/mountpoint.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { machine } from '#host/exec.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { createContainer } from '#operations/guest/create-container.ts'
import { type RestoreContainer, restoreContainer } from '#operations/guest/restore-container.ts'
import { halfFor } from '#operations/backup/halves.ts'
import { backupGuests } from '#operations/backup/run.ts'
import { whileStill } from '#operations/backup/still-container.ts'
import { memoryJournal, openJournal } from '#tasks/journal.ts'
import { releaseLocks } from '#tasks/lock.ts'
import { perform, unwind } from '#tasks/perform.ts'
import { settingsToEnv } from '../../src/settings.ts'
import { btrfsDisk } from '../fixtures/btrfs-disk.ts'
import { writeTemplate } from '../fixtures/containers/template.ts'
import { type BackupWorld, backupWorld, task } from './backup-world.ts'

const host = machine()

suite('backups of containers', { timeout: 300_000 }, () => {
  let world: BackupWorld
  let archive: string
  let vmid: Vmid
  before(async () => {
    world = await backupWorld()
    archive = join(world.settings.stateDir, 'template.tar')
    await writeTemplate(archive)
    vmid = await make(100, {
      hostname: 'web',
      rootfs: 'local:0',
      mp0: 'local:0.1,mp=/srv/data,backup=1',
      mp1: 'local:0,mp=/srv/cache',
      mp2: `${world.settings.stateDir},mp=/srv/node`,
    })
    await world.guests.start(vmid)
    await sh(vmid, writeEverything)
    await fillFromOutside()
  })
  after(() => world[Symbol.asyncDispose]())
  afterEach(async () => {
    for (const number of [101, 102]) await gone(world.id(number))
  })

  const make = async (number: number, options: Options): Promise<Vmid> => {
    const all = { memory: '64', ostype: 'unmanaged', entrypoint: '/etc/quick', unprivileged: '1', ...options }
    const params = { vmid: number, template: archive, options: all }
    await perform(
      createContainer,
      params,
      { ...world.deps, templateTrees: { fill: unpackTemplate } },
      memoryJournal(),
      {
        task: { ...task, upid: `UPID:make-${number}` },
      },
    )
    return world.id(number)
  }
  const sh = async (id: Vmid, script: string): Promise<string> => {
    const command = ['/bin/sh', '-c', script]
    const { code, stdout, stderr } = await world.guests.runInside(id, {
      command,
      timeoutMs: 20_000,
      outputBytes: 99_999,
    })
    assert.equal(code, 0, `${script}: ${stdout}${stderr}`)
    return stdout.trimEnd()
  }
  const writeEverything = [
    'mkdir -p /root/dir /tmp/junk /srv/data/deep',
    'echo kept > /root/note; ln /root/note /root/dir/same; ln -s ../note /root/dir/link',
    'echo data > /srv/data/deep/file; echo cache > /srv/cache/file; echo junk > /tmp/junk/x; echo o > /root/dir/a.o',
    'chown 1000:1001 /root/dir; chmod 750 /root/dir; chmod 4755 /root/dir/same',
    'dd if=/dev/zero of=/root/sparse bs=1 count=1 seek=5000000 2>/dev/null; mkfifo /root/pipe 2>/dev/null || mknod /root/pipe p',
  ].join(' && ')
  /** What busybox has no words for. Ids inside are ids of the map outside. */
  const fillFromOutside = async () => {
    const { path } = await world.storage.location(volumeOf(await optionsOf(vmid), 'rootfs'))
    await host.run(['setfacl', '-m', 'u:101234:rw', join(path, 'root/note')])
    await host.run(['setfattr', '-n', 'user.colour', '-v', 'red', join(path, 'root/note')])
    await host.run(['setcap', '-n', '100000', 'cap_net_raw+ep', join(path, 'bin/busybox')])
  }
  const optionsOf = async (id: Vmid) => (await world.guests.config(id, 'lxc')).options
  const volumeOf = (options: Options, name: string): VolumeId =>
    volumesIn(options).find((one) => one.name === name)?.volid ?? assert.fail(`no volume ${name}`)
  const back = async (params: RestoreContainer, user = 'root@pam') => {
    const lines: string[] = []
    const log = (line: string) => void lines.push(line)
    const who = { ...task, upid: `UPID:restore-${randomInt(1e9)}`, user }
    const outcome = await perform(restoreContainer, params, world.deps, memoryJournal(), {
      task: who,
      log,
      warn: log,
    }).then(() => 'whole', messageOf)
    return { outcome, log: lines.join('\n') }
  }
  const gone = async (id: Vmid) => {
    if (!(await world.guests.exists(id))) return
    if (await world.guests.isRunning(id)) await world.guests.stop(id)
    await world.storage.freeOwnedBy(id)
    await world.guests.removeConfig(id)
  }
  /** The container runs, is not held, and nothing of a backup is mounted or kept. */
  const asItWas = async () => {
    assert.equal(await world.guests.isRunning(vmid), true)
    assert.equal(await world.guests.isPaused(vmid), false)
    const own = (await mountPoints()).filter((path) => path.startsWith(`${world.settings.runDir}/mounts`))
    assert.deepEqual(own, [join(world.settings.runDir, 'mounts/100/mp0')])
    const marks = (await readdir(world.guests.runDirOf(vmid))).filter((name) => name.includes('held'))
    assert.deepEqual(marks, [])
  }
  /** The facts of every file in a folder of the node, with ids as they are inside. */
  const look = async (root: string, shift: number): Promise<string[]> => {
    const form = ['%p', '%y', '%m', '%U', '%G', '%s', '%n', '%T@', '%l']
    const { stdout } = await host.run(['find', '.', '-printf', `${form.join('\t')}\n`], { cwd: root })
    return stdout
      .trimEnd()
      .split('\n')
      .filter((line) => !/^\.\/(tmp|srv)\/|^\.\/(srv|tmp)\t/.test(line))
      .map((line) => {
        const [path = '', kind, mode, uid, gid, size, names, ...rest] = line.split('\t')
        const ids = [Number(uid) - shift, Number(gid) - shift]
        // How large a folder is, and how many are in it, is its file system's to say.
        return [path, kind, mode, ...ids, ...(kind === 'd' ? [] : [size, names]), ...rest].join(' ')
      })
      .toSorted()
  }

  test('hold the root and the mount points that ask for it, while the container runs on', async () => {
    const log: string[] = []
    const said = join(world.settings.stateDir, 'said')
    const script = join(world.settings.stateDir, 'hook')
    await writeFile(script, `#!/bin/sh\necho "$1|$VMTYPE|$HOSTNAME" >> ${said}\n`, { mode: 0o755 })
    const how = { notesTemplate: '{{guestname}} {{vmid}}', script, fleecingStorage: 'local' }
    const [volid = asVolumeId('')] = await world.run({ vmids: [100], ...how }, log)
    assert.match(await readFile(said, 'utf8'), /^backup-start\|lxc\|web$[^]*^backup-end\|lxc\|web$/m)
    assert.match(volid, /^vault:backup\/ct\/100\//)
    await asItWas()
    const text = log.join('\n')
    for (const line of [
      /^INFO: Starting Backup of VM 100 \(lxc\)$/m,
      /^INFO: status = running$/m,
      /^INFO: CT Name: web$/m,
      /^INFO: including mount point rootfs \('\/'\) in backup$/m,
      /^INFO: including mount point mp0 \('\/srv\/data'\) in backup$/m,
      /^INFO: excluding volume mount point mp1 \('\/srv\/cache'\) from backup \(disabled\)$/m,
      /^INFO: excluding bind mount point mp2 \('\/srv\/node'\) from backup \(not a volume\)$/m,
      /^INFO: mode failure - some volumes do not support snapshots$/m,
      /^INFO: trying 'suspend' mode instead$/m,
      /^INFO: backup mode: suspend$/m,
      /^INFO: fleecing has no effect/m,
      /^INFO: suspending guest$/m,
      /^INFO: guest is online again after \d+(\.\d)? seconds$/m,
      /^INFO: Finished Backup of VM 100 \(/m,
    ]) {
      assert.match(text, line)
    }
    const { manifest, type, notes } = await world.backup.describe(volid)
    assert.deepEqual([type, notes], ['ct', 'web 100'])
    assert.deepEqual(manifest.facts.leftOut, [
      { mount: 'mp1', reason: 'disabled' },
      { mount: 'mp2', reason: 'not a volume' },
    ])
    assert.ok(Number(manifest.facts.heldMs) > 0 && Number(manifest.facts.heldMs) < 10_000)
    await world.backup.verify(volid)
  })

  test('come back as another container: every file, its owner, and all that is said of it', async () => {
    const [volid = ''] = await world.run({ vmids: [100] })
    const { outcome, log } = await back({ vmid: 101, archive: volid, unique: true })
    assert.equal(outcome, 'whole', log)
    assert.match(log, /mp1 is left out: the backup does not hold it/)
    const [was, now] = [await optionsOf(vmid), await optionsOf(world.id(101))]
    assert.deepEqual(mountNames(now), ['rootfs', 'mp0', 'mp2'])
    assert.equal(now.hostname, 'web')
    const [from, to] = [
      (await world.storage.location(volumeOf(was, 'rootfs'))).path,
      (await world.storage.location(volumeOf(now, 'rootfs'))).path,
    ]
    assert.deepEqual(await look(to, 100_000), await look(from, 100_000))
    for (const [argv, file] of [
      [['getfacl', '--numeric', '--omit-header'], 'root/note'],
      [['getfattr', '--dump', '--match=-'], 'bin/busybox'],
    ] as const) {
      const said = async (root: string) => (await host.run([...argv, file], { cwd: root })).stdout
      assert.equal(await said(to), await said(from))
    }
    await world.guests.start(world.id(101))
    assert.equal(await sh(world.id(101), 'cat /root/note /srv/data/deep/file'), 'kept\ndata')
    assert.equal(await sh(world.id(101), 'stat -c "%u:%g %a" /root/dir'), '1000:1001 750')
    assert.equal(await sh(world.id(101), 'ls /tmp/junk 2>/dev/null | wc -l'), '0', 'temporary files are left out')
  })

  test('make a container privileged, and one with a user namespace again, with ids right inside', async () => {
    const [volid = ''] = await world.run({ vmids: [100] })
    assert.equal((await back({ vmid: 101, archive: volid, overrides: { unprivileged: '0' } })).outcome, 'whole')
    const privileged = (await world.storage.location(volumeOf(await optionsOf(world.id(101)), 'rootfs'))).path
    const { stdout } = await host.run(['getcap', '-n', join(privileged, 'bin/busybox')])
    assert.match(stdout, /cap_net_raw=ep$/m)
    await world.guests.start(world.id(101))
    assert.equal(await sh(world.id(101), 'stat -c "%u:%g" /root/dir /root'), '1000:1001\n0:0')
    assert.equal((await host.run(['stat', '-c', '%u', join(privileged, 'root/dir')])).stdout, '1000\n')
    const [again = ''] = await world.run({ vmids: [101], mode: 'suspend' })
    const plain = await back({ vmid: 102, archive: again }, 'ann@pve')
    assert.equal(plain.outcome, 'whole')
    assert.match(plain.log, /unprivileged is left out: only root can set it[^]*mp2 is left out: only root/)
    await world.guests.start(world.id(102))
    assert.equal(
      await sh(world.id(102), 'stat -c "%u:%g" /root/dir /root; cat /proc/self/uid_map').then((text) =>
        text.replaceAll(/ +/g, ' '),
      ),
      '1000:1001\n0:0\n 0 100000 65536',
    )
  })

  test('take a container back to what it was; volumes of which they know nothing stay', async () => {
    const [volid = ''] = await world.run({ vmids: [100] })
    await sh(vmid, 'echo changed > /root/note; rm /srv/data/deep/file; echo new > /root/new')
    const before = await optionsOf(vmid)
    assert.match((await back({ vmid: 100, archive: volid })).outcome, /CT 100 already exists/)
    assert.match(
      (await back({ vmid: 100, archive: volid, force: true })).outcome,
      /unable to restore CT 100 - CT is running/,
    )
    await world.guests.stop(vmid)
    await world.guests.writeConfig(vmid, { ...before, protection: '1' })
    assert.match((await back({ vmid: 100, archive: volid, force: true })).outcome, /protection mode enabled/)
    await world.guests.writeConfig(vmid, before)
    assert.equal((await back({ vmid: 100, archive: volid, force: true })).outcome, 'whole')
    const now = await optionsOf(vmid)
    assert.equal(volumeOf(now, 'unused0'), volumeOf(before, 'mp1'))
    const volumes = (await world.storage.content('local', { vmid })).map((one) => one.volid)
    assert.deepEqual(
      volumes.toSorted(),
      volumesIn(now)
        .map((one) => one.volid)
        .toSorted(),
    )
    await world.guests.start(vmid)
    assert.equal(await sh(vmid, 'cat /root/note /srv/data/deep/file; ls /root/new 2>/dev/null || true'), 'kept\ndata')
  })

  test('leave out what they are told to, in modes suspend and stop alike', async () => {
    for (const mode of ['suspend', 'stop'] as const) {
      const how = { mode, excludePaths: ['*.o', '/srv/data/deep', '/www'], excludesTemporary: false }
      const [volid = ''] = await world.run({ vmids: [100], ...how })
      await asItWas()
      assert.equal((await back({ vmid: 101, archive: volid })).outcome, 'whole')
      await world.guests.start(world.id(101))
      assert.equal(
        await sh(world.id(101), 'ls /root/dir; ls /srv/data; ls /www 2>&1 | wc -l'),
        'link\nsame\nlost+found\n1',
      )
      await gone(world.id(101))
    }
  })

  test('of a container that is down read its images without writing to them', async () => {
    await world.guests.stop(vmid)
    const { path: image } = await world.storage.location(volumeOf(await optionsOf(vmid), 'mp0'))
    const sum = async () => (await host.run(['sha256sum', image])).stdout
    const before = await sum()
    const [volid = ''] = await world.run({ vmids: [100] })
    assert.equal(await sum(), before)
    assert.equal(await world.guests.isRunning(vmid), false)
    assert.deepEqual(
      (await mountPoints()).filter((path) => path.includes(`${world.settings.runDir}/mounts`)),
      [],
    )
    assert.equal((await world.backup.describe(asVolumeId(volid))).manifest.facts.wasRunning, false)
    await world.guests.start(vmid)
  })

  test('leave one that was suspended as it was', async () => {
    await world.guests.suspend(vmid)
    await world.run({ vmids: [100], mode: 'suspend' })
    assert.equal(await world.guests.isPaused(vmid), true)
    await world.guests.resume(vmid)
    await asItWas()
  })

  test('of a container whose storage keeps moments hold it no longer than that takes', async () => {
    await using disk = await btrfsDisk(256 * MiB)
    await world.storage.create({ storage: 'pool', type: 'btrfs', path: disk.path, content: 'images,rootdir' })
    const id = await make(102, { rootfs: 'pool:0', mp0: 'pool:0.05,mp=/srv/data,backup=1' })
    await world.guests.start(id)
    await sh(
      id,
      'echo kept > /root/note; echo data > /srv/data/file; (while :; do date >> /root/dates; done) >/dev/null 2>&1 &',
    )
    const snapshots = () =>
      readdir(join(disk.path, 'images/102')).then((names) => names.filter((name) => name.includes('@')))
    for (const round of [1, 2]) {
      const log: string[] = []
      const [volid = asVolumeId('')] = await world.run({ vmids: [102] }, log)
      assert.match(log.join('\n'), /backup mode: snapshot[^]*the guest was held still for \d+ ms/)
      assert.doesNotMatch(log.join('\n'), /mode failure|first pass/)
      assert.deepEqual(await snapshots(), [])
      assert.equal(await world.guests.isPaused(id), false)
      // What has not changed since the first one is not read again.
      if (round === 2) assert.match(log.join('\n'), /rootfs: read: \d+ files, [\d.]+ MiB of data, [\d.]+ KiB read/)
      await world.backup.verify(volid)
      assert.equal((await back({ vmid: 101, archive: volid, storage: 'local' })).outcome, 'whole')
      await world.guests.start(world.id(101))
      assert.equal(await sh(world.id(101), 'cat /root/note /srv/data/file; test -s /root/dates'), 'kept\ndata')
      await gone(world.id(101))
    }
    // A process that dies while it reads leaves snapshots, which whoever cleans up finds.
    const half = halfFor('lxc')
    const config = await world.guests.config(id, 'lxc')
    const silent = { log: () => {}, warn: () => {}, alarm: () => {}, hint: () => {} }
    const quiet = { ...silent, progress: () => {}, signal: new AbortController().signal }
    const context = {
      deps: world.deps,
      upid: 'UPID:killed',
      how: { storage: 'vault', mode: 'snapshot' },
      ...quiet,
    } as const
    await half.open({ vmid: id, config, wasRunning: true, context }, 'snapshot')
    assert.equal((await snapshots()).length, 2)
    await half.leave(world.deps, id, 'UPID:killed')
    assert.deepEqual(await snapshots(), [])
    await gone(id)
    await world.storage.delete('pool')
  })

  test('that die while they hold the container still are found by whoever cleans up', async () => {
    for (const isSuspended of [false, true]) {
      if (isSuspended) await world.guests.suspend(vmid)
      // As a process that is gone in the middle: it never comes to its end.
      const begun = Promise.withResolvers<void>()
      void whileStill(world.guests, vmid, () => (begun.resolve(), new Promise<never>(() => {})))
      await begun.promise
      assert.equal(await world.guests.isPaused(vmid), true)
      await halfFor('lxc').leave(world.deps, vmid, 'UPID:killed')
      assert.equal(await world.guests.isPaused(vmid), isSuspended)
      if (isSuspended) await world.guests.resume(vmid)
      await asItWas()
    }
  })

  test('that are killed at any moment leave the container going on, and no half backup', async () => {
    const count = (await world.backup.list({ storage: 'vault' })).length
    for (let round = 0; round < 3; round += 1) {
      const journal = join(world.settings.stateDir, `journal-${round}`)
      await killBackup(journal, 25 * round + randomInt(40))
      await using file = await openJournal(journal)
      const params = { vmids: [100], storage: 'vault', mode: 'suspend' } as const
      const how = { task: { ...task, upid: 'UPID:killed' } }
      if (file.records.length > 0) await unwind(backupGuests, params, world.deps, file, how)
      await releaseLocks(world.store, () => true)
      await asItWas()
    }
    for (const { volid } of (await world.backup.list({ storage: 'vault' })).slice(count))
      await world.backup.verify(volid)
  })

  const killBackup = async (journal: string, ms: number) => {
    const program = join(import.meta.dirname, '../fixtures/backup-worker.ts')
    const argv = [...nodeFlags, program, journal, '100', '0']
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...settingsToEnv(world.settings) }
    const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'], env })
    const ended = once(child, 'exit')
    await Promise.race([once(child.stdout, 'data'), ended])
    await systemClock.sleep(ms) // The moment of death is the point of this test.
    child.kill('SIGKILL')
    await ended
  }
})
