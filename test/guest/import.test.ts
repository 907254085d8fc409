/** A machine from another platform: uploaded as an archive, made from what it describes, booted, and asked from inside. */
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { logIn, proofOf, publicPort } from '../contract/public-port.ts'
import { ovfText } from '../fixtures/ovf.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const host = machine()
const closing = new AsyncDisposableStack()
let node: TestNode
let folder: string

before(async () => {
  node = closing.use(await nodeUnderTest())
  folder = await mkdtemp('/var/tmp/hako-ova-')
  closing.defer(() => rm(folder, { recursive: true, force: true }))
})
after(() => closing.disposeAsync())

/** The tiny guest and a disk of data, exported as other platforms do it. */
async function makeArchive(): Promise<string> {
  const at = (name: string) => join(folder, name)
  const image = await ensureGuestImage({ host, cacheDir: node.settings.cacheDir })
  const stream = ['-o', 'subformat=streamOptimized']
  await host.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'vmdk', ...stream, image.path, at('tiny guest-disk1.vmdk')])
  await writeFile(at('data.raw'), 'data of another platform\n'.padEnd(1024 * 1024, '\0'))
  await host.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', at('data.raw'), at('data.qcow2')])
  const disks = [
    { file: 'tiny%20guest-disk1.vmdk', mib: Math.ceil(image.sizeBytes / 2 ** 20) },
    { file: 'data.qcow2', mib: 1 },
  ]
  await writeFile(at('tiny.ovf'), ovfText({ name: 'tiny guest', disks }))
  await host.run(['tar', '-C', folder, '-cf', at('tiny.ova'), 'tiny.ovf', 'tiny guest-disk1.vmdk', 'data.qcow2'])
  return at('tiny.ova')
}

async function upload(file: string): Promise<void> {
  const user = { userid: 'keeper@pve', password: 'correct horse battery' }
  await node.api('POST', '/access/users', user)
  await node.api('PUT', '/access/acl', { path: '/storage', users: user.userid, roles: 'PVEDatastoreAdmin' })
  const base = `${node.url}/api2/json`
  const ask = publicPort(base, proofOf(await logIn(base, user.userid, user.password)))
  const sent = await ask('/nodes/testnode/storage/local/upload', '-F', 'content=import', '-F', `filename=@${file}`)
  assert.equal(sent.status, 200, sent.body)
  await node.task(sent.data)
}

test('an archive becomes a guest that runs, with its data', async () => {
  await upload(await makeArchive())
  const path = '/nodes/testnode/storage/local/import-metadata'
  const found = (await node.api('GET', path, { volume: 'local:import/tiny.ova' })) as {
    'create-args': Record<string, string | number>
    disks: Record<string, { volid: string }>
  }
  const options = Object.entries(found['create-args']).map(([name, value]) => [name, String(value)])
  const drives = Object.entries(found.disks).map(([drive, { volid }]) => [drive, `local:0,import-from=${volid}`])
  assert.deepEqual(Object.keys(found.disks), ['scsi0', 'scsi1'])
  // The tiny guest knows virtio alone.
  const guest = { ...Object.fromEntries([...options, ...drives]), scsihw: 'virtio-scsi-pci' } as Record<string, string>
  await node.boot(300, guest)
  // Which of them comes first is the kernel's choice.
  const dump = 'for disk in /dev/sda /dev/sdb; do head -c 24 $disk; echo; done'
  assert.match(await node.sh(300, dump), /^data of another platform$/m)
  assert.match(await node.sh(300, 'cat /etc/os-release'), /Hakobune/)
  const config = (await node.api('GET', '/nodes/testnode/qemu/300/config')) as Record<string, string>
  assert.deepEqual([config['name'], config['ostype']], ['tiny-guest', 'l26'])
  assert.match(config['scsi1'] ?? '', /^local:300\/vm-300-disk-\d\.\w+,size=1M$/)
})

test('a disk comes in for a guest that exists, and what would read the host does not', async () => {
  const set = (options: Record<string, string>) => node.api('PUT', '/nodes/testnode/qemu/300/config', options)
  await set({ scsi2: 'local:0,import-from=local:import/tiny.ova/data.qcow2' })
  const config = (await node.api('GET', '/nodes/testnode/qemu/300/config')) as Record<string, string>
  const [volid = ''] = (config['scsi2'] ?? '').split(',')
  const facts = (await node.api('GET', `/nodes/testnode/storage/local/content/${volid}`)) as Record<string, string>
  const { path = '', format = '' } = facts
  await host.run(['qemu-img', 'compare', '-q', '-f', 'raw', '-F', format, join(folder, 'data.raw'), path])
  const hostile = join(folder, 'hostile.qcow2')
  await host.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b', '/etc/shadow', '-F', 'raw', hostile, '1M'])
  await assert.rejects(set({ scsi3: `local:0,import-from=${hostile}` }), /refers to the backing file '\/etc\/shadow'/)
  await assert.rejects(set({ scsi3: 'local:0,import-from=local:import/tiny.ova' }), /verification failed/)
})
