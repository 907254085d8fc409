/** Restores of containers keep the promise every operation makes, from a backup as from an archive of Proxmox VE. */
import assert from 'node:assert/strict'
import { createWriteStream } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { after, before, suite, test } from 'node:test'
import { createZstdCompress } from 'node:zlib'
import { isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { systemRandom } from '#base/random.ts'
import { archiveOf } from '#backup/archive.ts'
import type { Options } from '#guests/config.ts'
import { mountNames, volumesIn } from '#guests/lxc/mountpoint.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { machine } from '#host/exec.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { makeMounts } from '#operations/guest/container-volumes.ts'
import { createContainer } from '#operations/guest/create-container.ts'
import { type RestoreContainer, restoreContainer } from '#operations/guest/restore-container.ts'
import { backupGuests } from '#operations/backup/run.ts'
import { verifyBackups } from '#operations/backup/verify.ts'
import { containerConfText } from '#operations/backup/kept-archive.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { writeTemplate } from '../fixtures/containers/template.ts'
import { type BackupWorld, backupWorld, task } from './backup-world.ts'

const host = machine()

suite('restores of containers', { timeout: 300_000 }, () => {
  let world: BackupWorld
  let template: string
  let backup: string
  let small = ''
  before(async () => {
    world = await backupWorld({ forgetful: true })
    template = join(world.settings.stateDir, 'template.tar')
    await writeTemplate(template)
    await make(100, { rootfs: 'local:0', mp0: 'local:0.05,mp=/srv/data,backup=1', mp1: 'local:0,mp=/var/cache' })
    backup = (await world.run({ vmids: [100] }))[0] ?? ''
  })
  after(() => world[Symbol.asyncDispose]())

  const make = async (number: number, options: Options) => {
    const all = { memory: '64', ostype: 'unmanaged', entrypoint: '/etc/quick', unprivileged: '1', ...options }
    const how = { task: { ...task, upid: `UPID:make-${number}` } }
    const deps = { ...world.deps, templateTrees: { fill: unpackTemplate } }
    await perform(createContainer, { vmid: number, template, options: all }, deps, memoryJournal(), how)
  }
  const remove = async (number: number) => {
    const id = world.id(number)
    if (!(await world.guests.exists(id))) return
    if (await world.guests.isRunning(id)) await world.guests.stop(id)
    await world.storage.freeOwnedBy(id)
    await world.guests.removeConfig(id)
  }
  const back = async (params: RestoreContainer) => {
    const lines: string[] = []
    const log = (line: string) => void lines.push(line)
    await perform(restoreContainer, params, world.deps, memoryJournal(), { task, log, warn: log })
    return lines.join('\n')
  }
  const optionsOf = async (number: number) => (await world.guests.config(world.id(number), 'lxc')).options
  const rootOf = async (number: number) => {
    const root = volumesIn(await optionsOf(number)).find(({ name }) => name === 'rootfs')
    return (await world.storage.location(root?.volid ?? assert.fail('no root'))).path
  }
  /** All a restore could leave behind; which number a volume has is not of interest. */
  const everything = async () => {
    const { guests, settings, store, storage } = world
    const volumes = await storage.content('local', {})
    const found = {
      guests: (await guests.list()).map(({ vmid, kind, options, lock, state }) => ({
        vmid,
        kind,
        options,
        lock,
        state: state.state,
      })),
      // That a backup failed is counted, which is all that may stay of it.
      keys: (await store.list('')).map(({ key }) => key).filter((key) => !key.startsWith('cluster/backup-counts/')),
      mounts: (await mountPoints()).filter((path) => path.startsWith(settings.runDir) && !path.endsWith('/lxcfs/fs')),
      runFiles: (await readdir(settings.runDir, { recursive: true }).catch(() => [])).filter((name) =>
        /mounts|held/.test(name),
      ),
      volumes: volumes.map(({ volid, format }) => ({ volid, format })),
      hidden: (await readdir(join(settings.stateDir, 'storage'), { recursive: true })).filter((name) =>
        /\/\.[^/]+$/.test(name),
      ),
    }
    return JSON.parse(JSON.stringify(found)) as object
  }
  const own = { [Symbol.asyncDispose]: async () => {} }

  /** Nothing in it is run, so a few files do. */
  const tiny = async (number: number, options: Options) => {
    const id = world.id(number)
    const { storage, guests } = world
    await guests.reserve(id, 'test', 'lxc')
    const mounts = await makeMounts(options, mountNames(options), { vmid: id, storage, host, log: () => {} })
    await guests.withVolumes(id, mounts, async ({ rootfs = '' }) => writeFile(join(rootfs, 'file'), String(number)))
    await guests.writeConfig(id, { memory: '64', ostype: 'unmanaged', ...mounts }, { owner: 'test' })
  }

  everyStepFails(restoreContainer, async () => {
    for (const number of [103, 104]) await remove(number)
    if (small === '') {
      await tiny(103, { rootfs: 'local:0' })
      small = (await world.run({ vmids: [103] }))[0] ?? ''
    }
    await tiny(104, { rootfs: 'local:0', mp0: 'local:0,mp=/srv' })
    const params = { vmid: 104, archive: small, force: true }
    return { params, deps: world.deps, look: everything, ...own }
  })

  everyStepFails(
    backupGuests,
    async () => {
      await remove(103)
      await tiny(103, { rootfs: 'local:0', mp0: 'local:0,mp=/srv,backup=1' })
      const params = { vmids: [103], storage: 'vault', mode: 'suspend' } as const
      const look = async () => {
        const damaged = (await world.backup.list({ storage: 'vault' })).filter(({ damage }) => damage !== undefined)
        return {
          ...(await everything()),
          damaged,
          writers: await readdir(join(world.settings.stateDir, 'vault/datastore/leases')).catch(() => []),
        }
      }
      return { params, deps: world.deps, look, ...own }
    },
    { leavesNothing: true },
  )

  everyStepFails(
    Object.assign(Object.create(restoreContainer) as typeof restoreContainer, { name: 'vzrestore to a new id' }),
    async () => {
      await remove(101)
      return { params: { vmid: 101, archive: small, start: true }, deps: world.deps, look: everything, ...own }
    },
    // The restore over another container stands for crashes.
    { withCrashes: false },
  )

  test('into a volume or a storage that is too small leave nothing behind, and say which it was', async () => {
    await remove(101)
    const before = await everything()
    const folder = join(world.settings.stateDir, 'small')
    await mkdir(folder)
    await host.run(['mount', '-t', 'tmpfs', '-o', 'size=1m,mode=0711', 'hako-test', folder])
    try {
      await world.storage.create({ storage: 'small', type: 'dir', path: folder, content: 'rootdir' })
      const fault = await back({ vmid: 101, archive: backup, storage: 'small' }).then(
        assert.fail,
        (cause: unknown) => cause,
      )
      assert.ok(isFault(fault, 'exhausted'), String(fault))
      assert.match(fault.message, /storage 'small'/)
      // Room that goes while it is written is named all the same.
      const careless = new Proxy(world.storage, {
        get(storage, name) {
          if (name === 'requireSpace') return async () => {}
          const value: unknown = Reflect.get(storage, name, storage)
          return typeof value === 'function' ? value.bind(storage) : value
        },
      })
      const params = { vmid: 101, archive: backup, overrides: { rootfs: 'small:0' } }
      const late = await perform(restoreContainer, params, { ...world.deps, storage: careless }, memoryJournal(), {
        task,
      }).then(
        () => assert.fail(),
        (cause: unknown) => cause,
      )
      assert.ok(isFault(late, 'exhausted'), String(late))
      assert.match(late.message, /no space left on storage 'small' for rootfs of CT 101/)
      await world.storage.delete('small')
    } finally {
      await host.run(['umount', folder])
    }
    assert.deepEqual(await everything(), before)
    const refused = await back({ vmid: 101, archive: backup, overrides: { rootfs: 'local:0.001' } }).then(
      assert.fail,
      (cause: unknown) => cause,
    )
    assert.ok(isFault(refused, 'invalid') && /is too small/.test(refused.fields?.rootfs ?? ''), String(refused))
    assert.deepEqual(await everything(), before)
  })

  test('from an archive of Proxmox VE bring files, mount points and configuration, and say what they leave out', async () => {
    await remove(101)
    const tree = join(world.settings.stateDir, 'pve')
    await mkdir(join(tree, 'etc/vzdump'), { recursive: true })
    await host.run(['tar', '-x', '-f', template, '-C', tree])
    await mkdir(join(tree, 'srv/data/deep'), { recursive: true })
    await writeFile(join(tree, 'srv/data/deep/file'), 'data\n')
    await writeFile(join(tree, 'etc/vzdump/pct.conf'), pctConf)
    const list = join(world.settings.stateDir, 'vault/dump')
    await mkdir(list, { recursive: true })
    const file = 'vzdump-lxc-300-2026_01_31-12_00_00.tar.zst'
    await host.run([
      'tar',
      '-c',
      '--zstd',
      '-f',
      join(list, file),
      '--numeric-owner',
      '-C',
      tree,
      './etc/vzdump/pct.conf',
      '.',
    ])
    const archive = `vault:backup/${file}`
    const [listed] = await world.storage.content('vault', {})
    assert.equal(listed?.volid, archive)
    await assert.rejects(back({ vmid: 101, archive }), /storage 'local-lvm' does not exist here, where rootfs was/)
    const log = await back({ vmid: 101, archive, storage: 'local', overrides: { unprivileged: '1' } })
    for (const line of [
      /mp1 is left out/,
      /snapshots are not in the archive and are left out: before/,
      /1 lines of the configuration are left out/,
    ]) {
      assert.match(log, line)
    }
    const options = await optionsOf(101)
    assert.deepEqual([options.hostname, options.description, options.unprivileged], ['pve', 'from elsewhere', '1'])
    assert.match(options.mp0 ?? '', /^local:101\/subvol-101-disk-1\.subvol,.*mp=\/srv\/data$/)
    await world.guests.start(world.id(101))
    const command = [
      '/bin/sh',
      '-c',
      'cat /srv/data/deep/file; ls /etc/vzdump; stat -c %u /bin/busybox; df /srv/data | wc -l',
    ]
    const { stdout } = await world.guests.runInside(world.id(101), { command, timeoutMs: 10_000, outputBytes: 999 })
    assert.equal(stdout, 'data\n0\n2\n')
    await world.guests.stop(world.id(101))
    assert.deepEqual(await readdir(join(await rootOf(101), 'srv/data')), [], 'what is in a mount point is there alone')
    assert.equal(await containerConfText(world.storage, archive, new AbortController().signal), pctConf)
    const said: string[] = []
    await perform(verifyBackups, { volume: archive }, world.deps, memoryJournal(), {
      task,
      log: (line) => void said.push(line),
    })
    assert.match(said.join('\n'), /files, \d+ bytes can be read/)
    // Without the word there a container has no user namespace, and its files are root's.
    await remove(101)
    await back({ vmid: 101, archive, storage: 'local' })
    assert.equal((await optionsOf(101)).unprivileged, '0')
    const owners = ['bin/busybox', 'srv', 'srv/data']
    assert.equal((await host.run(['stat', '-c', '%u', ...owners], { cwd: await rootOf(101) })).stdout, '0\n0\n0\n')
    // One that is cut off is no archive any more.
    const cut = join(world.settings.stateDir, 'vzdump-lxc-300-2026_01_31-12_00_01.tar.zst')
    const whole = await readFile(join(list, file))
    await writeFile(cut, whole.subarray(0, whole.length / 2))
    await remove(101)
    const before = await everything()
    await assert.rejects(back({ vmid: 101, archive: cut, storage: 'local' }), (fault) => isFault(fault, 'damaged'))
    assert.deepEqual(await everything(), before)
  })

  test('from a backup that was taken elsewhere as an archive run as before', async () => {
    await remove(101)
    const file = await (async () => {
      await using reader = await world.backup.open(asVolumeId(backup))
      const { fileName, bytes } = await archiveOf(reader, systemRandom)
      const path = join(world.settings.stateDir, `${fileName}.zst`)
      await pipeline(Readable.from(bytes), createZstdCompress(), createWriteStream(path))
      return path
    })()
    assert.match(file, /vzdump-lxc-100-.*\.tar\.zst$/)
    await back({ vmid: 101, archive: file, storage: 'local' })
    const options = await optionsOf(101)
    assert.deepEqual([options.unprivileged, options.entrypoint], ['1', '/etc/quick'])
    await world.guests.start(world.id(101))
    const command = ['/bin/sh', '-c', 'stat -c %u /bin/busybox; df /srv/data | wc -l']
    const { stdout } = await world.guests.runInside(world.id(101), { command, timeoutMs: 10_000, outputBytes: 999 })
    assert.equal(stdout, '0\n2\n')
    await world.guests.stop(world.id(101))
  })
})

const pctConf = `#from elsewhere
arch: amd64
hostname: pve
memory: 64
mp0: local-lvm:vm-300-disk-1,mp=/srv/data,backup=1
mp1: local-lvm:vm-300-disk-2,mp=/var/cache,size=1G
ostype: unmanaged
entrypoint: /etc/quick
parent: before
rootfs: local-lvm:vm-300-disk-0
swap: 512
lxc.cgroup2.devices.allow: a

[before]
arch: amd64
rootfs: local-lvm:vm-300-disk-0,size=1G
`
