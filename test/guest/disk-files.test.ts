/** Single files come out of the disks of a backup, whatever file system is on them, and nothing is restored for it. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { findProcesses } from '#host/programs/proc.ts'
import {
  deepFolders,
  type DiskOfFileSystems,
  diskOfFileSystems,
  textOfHostname,
} from '../fixtures/disk-of-file-systems.ts'
import { rootSession } from './console-client.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

interface Item {
  readonly filepath: string
  readonly leaf: number | boolean
  readonly size?: number
  readonly text: string
  readonly type: string
}

suite('files on the disks of a backup', { timeout: 600_000 }, () => {
  let node: TestNode
  let made: DiskOfFileSystems
  let volume: string
  let at: string
  let ticket: string
  let first: readonly number[]
  before(async () => {
    node = await nodeUnderTest()
    ticket = (await rootSession(node)).ticket
    made = await diskOfFileSystems(machine(), node.settings.stateDir)
    const qemu = `/nodes/${node.settings.node}/qemu`
    await node.task(
      await node.api('POST', qemu, { vmid: '100', memory: '16', scsi0: `local:0,import-from=${made.path}` }),
    )
    await node.api('PUT', '/storage/local', { content: 'images,backup' })
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'local' }))
    const content = `/nodes/${node.settings.node}/storage/local/content`
    volume = ((await node.api('GET', content, { content: 'backup' })) as { volid: string }[])[0]?.volid ?? ''
    at = `/nodes/${node.settings.node}/storage/local/file-restore`
  })
  after(() => node[Symbol.asyncDispose]())

  const path64 = (path: string) => Buffer.from(path, 'latin1').toString('base64')
  const list = async (path: string) =>
    (await node.api('GET', `${at}/list`, { volume, filepath: path === '/' ? '/' : path64(path) })) as Item[]
  const download = (path: string, more: Record<string, string> = {}) =>
    node.api('GET', `${at}/download`, { volume, filepath: path64(path), ...more })
  const downloadAt = (path: string, more: Record<string, string> = {}) =>
    `/api2/json${at}/download?${new URLSearchParams({ volume, filepath: path64(path), ...more }).toString()}`
  /** From outside, through the front. */
  const fetched = async (path: string, more: Record<string, string> = {}, name = 'fetched') => {
    const [to, place] = [join(node.settings.stateDir, name), `${node.url}${downloadAt(path, more)}`]
    await machine().run(['curl', '-sSfk', '-b', `PVEAuthCookie=${ticket}`, '-o', to, place], { timeoutMs: 300_000 })
    return readFile(to)
  }
  const bottomOf = (tar: Buffer) =>
    execFileSync('tar', ['--zstd', '-xOf', '-', `${deepFolders}/bottom`], { input: tar }).toString()
  const isOurs = (argv: readonly string[]) => argv.some((part) => part.includes(`${node.settings.runDir}/files/`))
  const machines = () => findProcesses((argv) => isOurs(argv) && argv[0] === 'qemu-system-x86_64')
  const disk = '/drive-scsi0.img.fidx'
  const places = () =>
    Object.entries({
      ext4: 'part/1',
      xfs: 'part/2',
      btrfs: 'part/3',
      ntfs: 'part/4',
      lvm: `lvm/${made.group}/data`,
    })

  test('are found by the way clients take: disks, kinds of parts, parts, folders', async () => {
    const [one] = await list('/')
    assert.deepEqual([one?.text, one?.type, one?.filepath], ['drive-scsi0.img.fidx', 'v', path64(disk)])
    const names = async (path: string) => (await list(path)).map(({ text, type }) => `${type} ${text}`)
    assert.deepEqual((await names(disk)).toSorted(), ['v lvm', 'v part'])
    assert.deepEqual(await names(`${disk}/part`), ['v 1', 'v 2', 'v 3', 'v 4'])
    assert.deepEqual(await names(`${disk}/lvm/${made.group}`), ['v data'])
    assert.deepEqual(
      (await names(`${disk}/part/1/etc`)).toSorted(),
      ['f hostname', 'f two\nlines', 'l link'].toSorted(),
    )
    first = await machines()
    const [hostname] = await list(`${disk}/part/1/etc/hostname`)
    assert.deepEqual([hostname?.size, hostname?.filepath], [6, path64(`${disk}/part/1/etc/hostname`)])
  })

  for (const kind of ['ext4', 'xfs', 'btrfs', 'ntfs', 'lvm']) {
    test(`come whole from ${kind}`, async () => {
      const [, place] = places().find(([name]) => name === kind) ?? []
      assert.ok((await list(`${disk}/${place}`)).some(({ text, size }) => text === 'big' && size === made.big.length))
      assert.ok((await fetched(`${disk}/${place}/big`)).equals(made.big))
      const hostname = kind === 'ntfs' ? 'hostname' : 'etc/hostname'
      assert.equal((await fetched(`${disk}/${place}/${hostname}`)).toString(), textOfHostname)
    })
  }

  test('come as folders, in a zip and in a tar', async () => {
    const into = join(node.settings.stateDir, 'archive')
    await writeFile(`${into}.zip`, await fetched(`${disk}/part/3/etc`))
    const python = 'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); print(z.testzip(), z.read("etc/hostname"))'
    assert.equal(execFileSync('python3', ['-c', python, `${into}.zip`]).toString(), "None b'hallo\\n'\n")
    await writeFile(`${into}.tar.zst`, await fetched(`${disk}/lvm/${made.group}/data/etc`, { tar: '1' }))
    const told = execFileSync('tar', ['--zstd', '-tf', `${into}.tar.zst`, '--quoting-style=escape']).toString()
    assert.deepEqual(told.trim().split('\n').toSorted(), ['etc/', 'etc/hostname', 'etc/link', 'etc/two\\nlines'])
    assert.equal(bottomOf(await fetched(`${disk}/lvm/${made.group}/data/deep`, { tar: '1' })), 'deep')
  })

  test('come whole to many who ask at once', async () => {
    const askers = Array.from({ length: 9 }, (_, number) => `all-${number}`)
    const all = await Promise.all(askers.map((name) => fetched(`${disk}/part/1/deep`, { tar: '1' }, name)))
    for (const bytes of all) assert.equal(bottomOf(bytes), 'deep')
    assert.deepEqual(await machines(), first)
  })

  test('come whole after others did not want theirs to the end, which costs the machine at most', async () => {
    for (let asked = 0; asked < 5; asked += 1) {
      const options = { socketPath: join(node.settings.runDir, 'api.sock'), path: downloadAt(`${disk}/part/1/big`) }
      const [reply] = (await once(get(options), 'response')) as [IncomingMessage]
      await once(reply, 'data')
      reply.destroy()
    }
    // One after the other: who comes when nobody is there may get a new machine.
    assert.ok((await fetched(`${disk}/part/1/big`)).equals(made.big))
    assert.ok((await fetched(`${disk}/part/1`, { tar: '1' })).length > made.big.length)
    const second = await machines()
    assert.equal(second.length, 1)
    assert.notDeepEqual(second, first)
    first = second
  })

  test('that are not there, or lead elsewhere, are told of', async () => {
    const refused = async (path: string, kind: 'missing' | 'invalid', says: RegExp) =>
      assert.rejects(
        list(path).then(() => download(path)),
        (fault) => isFault(fault, kind) && says.test(`${fault.message} ${JSON.stringify(fault.fields)}`),
        path,
      )
    await refused('/drive-scsi7.img.fidx', 'missing', /scsi7/)
    await refused(`${disk}/part/9/etc`, 'missing', /'\/scsi0\/part\/9\/etc' does not exist/)
    await refused(`${disk}/part/1/nothing`, 'missing', /'\/scsi0\/part\/1\/nothing' does not exist/)
    await refused(`${disk}/part/1/etc/link`, 'invalid', /symbolic link/)
    await refused(`${disk}/part/1/etc/link/x`, 'invalid', /link is on the way/)
    await refused(`${disk}/part/1/../../etc/passwd`, 'invalid', /no plain path/)
    await refused(`${disk}/part/5`, 'missing', /part\/5/)
  })

  test('need one machine, under a uid of its own, that ends with the daemon', async () => {
    const pids = await machines()
    assert.deepEqual(pids, first)
    assert.equal(pids.length, 1)
    const status = await readFile(`/proc/${pids[0]}/status`, 'utf8')
    assert.match(status, new RegExp(`^Uid:\\t(${node.settings.uidBase - 4}\\t?){4}$`, 'm'))
    assert.match(status, /^CapBnd:\t0+$/m)
    await node.kill9()
    const areGone = async () => (await findProcesses(isOurs)).length === 0
    await waitFor(areGone, { what: 'the end of the machine', timeoutMs: 10_000 })
  })
})
