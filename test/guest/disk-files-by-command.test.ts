/** Files on the disks of a virtual machine's backup, by the command line, as people do it. */
import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { machine } from '#host/exec.ts'
import { compiled } from '../compiled.ts'
import { type DiskOfFileSystems, diskOfFileSystems, textOfHostname } from '../fixtures/disk-of-file-systems.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const program = join(import.meta.dirname, '../../src/cli/main.ts')
const host = machine()

suite('files on the disks of a backup, by the command line', { timeout: 600_000 }, () => {
  let node: TestNode
  let made: DiskOfFileSystems
  let scratch: string
  let volid: string
  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'hako-disk-files-'))
    node = await nodeUnderTest()
    const { node: name, stateDir } = node.settings
    made = await diskOfFileSystems(host, stateDir)
    const disk = `local:0,import-from=${made.path}`
    await node.task(await node.api('POST', `/nodes/${name}/qemu`, { vmid: '100', memory: '16', scsi0: disk }))
    await node.api('PUT', '/storage/local', { content: 'images,backup' })
    await node.task(await node.api('POST', `/nodes/${name}/vzdump`, { vmid: '100', storage: 'local' }))
    const [backup] = (await node.api('GET', `/nodes/${name}/storage/local/content`, { content: 'backup' })) as {
      volid: string
    }[]
    volid = backup?.volid ?? ''
  })
  after(async () => {
    await node[Symbol.asyncDispose]()
    await rm(scratch, { recursive: true, force: true })
  })

  const hakoIn = (language: Readonly<Record<string, string>>, ...args: string[]) =>
    host.run([process.execPath, ...nodeFlags, program, ...args], {
      env: { ...compiled, HAKO_RUN_DIR: node.settings.runDir, HAKO_NODE: node.settings.node, ...language },
      okCodes: Array.from({ length: 16 }, (_, code) => code),
      cwd: scratch,
      // The first that looks waits until the machine is there.
      timeoutMs: 200_000,
    })
  const hako = (...args: string[]) => hakoIn({ LC_ALL: 'C.UTF-8' }, ...args)
  const printed = async (...argv: [string, ...string[]]) => (await host.run(argv, { cwd: scratch })).stdout

  test('show where they are, from the disks on', async () => {
    const names = async (path?: string) => {
      const { code, stdout } = await hako('backup', 'files', volid, ...(path === undefined ? [] : [path]), '-o', 'id')
      assert.equal(code, 0)
      return stdout.trim().split('\n').toSorted()
    }
    assert.deepEqual(await names(), ['/scsi0'])
    assert.deepEqual(await names('/scsi0'), ['/scsi0/lvm', '/scsi0/part'])
    assert.deepEqual(
      await names(`/scsi0/lvm/${made.group}/data`),
      ['big', 'deep', 'etc', 'lost+found'].map((name) => `/scsi0/lvm/${made.group}/data/${name}`),
    )
    const { stdout } = await hako('backup', 'files', volid, '/scsi0/part/1/etc')
    assert.match(stdout, /^0644 +0 +0 +6 B +\S+ \S+ +hostname +-$/m)
    assert.match(stdout, /^0777 .* link +\/etc\/passwd$/m)
  })

  test('come as they are, and folders as archives', async () => {
    const got = async (...args: string[]) => {
      const { code, stdout, stderr } = await hako('backup', 'get', volid, ...args)
      assert.equal(code, 0, stderr)
      return stdout
    }
    assert.equal(await got('/scsi0/part/1/etc/hostname', '-'), textOfHostname)
    await got('/scsi0/part/1/big')
    assert.ok((await readFile(join(scratch, 'big'))).equals(made.big))
    await got('/scsi0/part/1/etc')
    assert.equal(await printed('tar', '-xOf', 'etc.tar', 'etc/hostname'), textOfHostname)
    await got(`/scsi0/lvm/${made.group}/data/etc`, 'etc.tar.zst', '--form', 'tar.zst')
    assert.equal(await printed('tar', '--zstd', '-xOf', 'etc.tar.zst', 'etc/hostname'), textOfHostname)
    await got('/scsi0/part/4', 'ntfs.zip', '--form', 'zip')
    assert.equal(await printed('unzip', '-p', 'ntfs.zip', '4/hostname'), textOfHostname)
  })

  test('that are not there are named, with where to look, in the reader’s language', async () => {
    const wrong = ['/scsi0/part/1/no/such', '/scsi0/part/9/etc', '/scsi0/nothing', '/scsi7/part/1', '/etc/hostname']
    for (const path of wrong) {
      const told = await hako('backup', 'get', volid, path)
      assert.deepEqual(
        [told.code, told.stderr],
        [
          3,
          `hako: '${path}' does not exist\nNext: A path begins with a disk, as /scsi0/part/1/etc does; the disks are listed by: hako backup files ${volid}\n`,
        ],
      )
    }
    const japanese = await hakoIn({ LANG: 'ja_JP.UTF-8', LC_ALL: '' }, 'backup', 'files', volid, '/etc')
    assert.equal(
      japanese.stderr,
      `hako: '/etc' がありません\n次の手順: パスは /scsi0/part/1/etc のようにディスクから始まります。ディスクの一覧: hako backup files ${volid}\n`,
    )
    const plain = await hako('backup', 'files', volid, 'etc')
    assert.match(plain.stderr, /path: 'etc' is no plain path from the root/)
    const link = await hako('backup', 'get', volid, '/scsi0/part/1/etc/link')
    assert.deepEqual([link.code, /is a symbolic link to '\/etc\/passwd'/.test(link.stderr)], [2, true])
    const kept = (await readdir(scratch)).filter((name) => name.includes('.part') || name === 'hostname')
    assert.deepEqual(kept, [])
  })
})
