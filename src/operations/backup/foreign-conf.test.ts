import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { optionErrors } from '#guests/qemu/options.ts'
import { drivesOfDevices, parseForeignConf } from './foreign-conf.ts'
import { translateForeign } from './foreign-options.ts'

/** As another platform writes it, with everything such a file may hold. */
const conf = `#Web server%3A main
#second line, 100%25
#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:
#qmdump#map:floppy0:drive-floppy0:local-lvm::
agent: 1,fstrim_cloned_disks=1
boot: order=scsi0;ide2;net0
ciuser: admin
cores: 2
cpu: x86-64-v2-AES
ide2: local:iso/debian-13.iso,media=cdrom,size=700M
ide0: local:101/vm-101-disk-0.raw,media=cdrom
memory: 2048
meta: creation-qemu=9.2.0,ctime=1747000000
name: web
net0: virtio=BC:24:11:2F:10:AA,bridge=vmbr0,firewall=1
numa: 0
onboot: 1
ostype: l26
parent: before
scsi0: local-lvm:vm-100-disk-0,aio=io_uring,discard=on,iothread=1,size=32G,ssd=1
scsi1: local-lvm:vm-100-disk-1,backup=0,size=8G
scsihw: virtio-scsi-single
smbios1: uuid=6b1c6a36-9e60-4f10-9f67-2a9ed4a6cb2a
sockets: 1
tags: prod;web
floppy0: local-lvm:vm-100-disk-2,size=4M
unused0: local-lvm:vm-100-disk-9
vmgenid: 0d8d4b0f-31a4-4b31-9f1e-49d02a3c3e7b
vga: nonsense-screen
what is this
[PENDING]
memory: 4096
[before]
#a snapshot
memory: 1024
scsi0: local-lvm:vm-100-disk-0,size=32G
snaptime: 1747000001
`

const volid = asVolumeId('local:200/vm-200-disk-0.raw')
const floppy = asVolumeId('local:200/vm-200-disk-1.raw')

async function translated(text: string, drives = [{ drive: 'scsi0', volid, sizeBytes: 1 << 30 }]) {
  const said: { log: string[]; warn: string[] } = { log: [], warn: [] }
  const options = await translateForeign(parseForeignConf(Buffer.from(text)), {
    drives,
    isDisc: async (one) => one === 'local:iso/debian-13.iso',
    log: (line) => void said.log.push(line),
    warn: (line) => void said.warn.push(line),
  })
  return { options, ...said }
}

suite('the configuration in an archive', () => {
  test('is taken apart: options, description, disks, snapshots', () => {
    const parsed = parseForeignConf(Buffer.from(conf))
    assert.equal(parsed.options.description, 'Web server: main\nsecond line, 100%')
    assert.equal(parsed.options.memory, '2048')
    assert.deepEqual(parsed.snapshots, ['before'])
    assert.deepEqual(parsed.strange, ['what is this'])
    assert.deepEqual(
      [...drivesOfDevices(parsed, ['drive-scsi0', 'drive-floppy0', 'drive-virtio3'])].map(([device, disk]) => [
        device,
        disk.drive,
        disk.storage,
        disk.format,
      ]),
      [
        ['drive-scsi0', 'scsi0', 'local-lvm', 'raw'],
        ['drive-floppy0', 'floppy0', 'local-lvm', undefined],
        ['drive-virtio3', 'virtio3', undefined, undefined],
      ],
    )
  })

  test('becomes one of ours, and what is left out is told', async () => {
    const { options, log, warn } = await translated(conf, [
      { drive: 'scsi0', volid, sizeBytes: 1 << 30 },
      { drive: 'floppy0', volid: floppy, sizeBytes: 4 << 20 },
    ])
    assert.equal(options.scsi0, `${volid},aio=io_uring,discard=on,iothread=1,ssd=1,size=1G`)
    assert.equal(options.ide2, 'local:iso/debian-13.iso,media=cdrom,size=700M')
    assert.equal(options.ide0, 'none,media=cdrom')
    assert.equal(options.net0, 'virtio=BC:24:11:2F:10:AA,bridge=vmbr0,firewall=1')
    assert.equal(options.tags, 'prod;web')
    assert.equal(options.cpu, 'x86-64-v2-AES')
    for (const gone of ['scsi1', 'meta', 'parent', 'vga']) assert.equal(options[gone], undefined, gone)
    assert.deepEqual(optionErrors(options), {})
    const all = [...log, ...warn].join('\n')
    for (const told of [/scsi1 is left out/, /snapshots .*: before/, /unused0 is left out/]) assert.match(all, told)
    const warned = warn.join('\n')
    for (const told of [/line .*'what is this'/, /ide0: the disc/, /vga is left out: /]) assert.match(warned, told)
    assert.match(warned, /disk floppy0 has no place/)
    assert.equal(options.unused0, floppy)
    assert.doesNotMatch(warned, /admin|before/)
  })

  test('keeps a disk whose settings nobody here knows, in its place', async () => {
    const { options, warn } = await translated('scsi0: x:y,colour=blue,size=1G\nmemory: 512\n')
    assert.equal(options.scsi0, `${volid},size=1G`)
    assert.match(warn.join('\n'), /scsi0: its settings/)
  })

  test('keeps a disk it does not mention as an unused one', async () => {
    const { options, warn } = await translated('memory: 512\n')
    assert.equal(options.unused0, volid)
    assert.match(warn.join('\n'), /scsi0 has no place in the guest: it is there as unused0/)
  })

  test('of any text is read or refused, never filling the log, and is always a valid one', async () => {
    const word = fc.oneof(
      fc.string({ maxLength: 40 }),
      fc.constantFrom(
        ...conf.split('\n'),
        '[x]',
        '#qmdump#map:a:b:c:d:',
        'scsi0: :',
        'boot: order=nothing',
        '__proto__: 1',
      ),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(word, { maxLength: 400 }), async (lines) => {
        const { options, log, warn } = await translated(lines.join('\n'))
        const rest = Object.fromEntries(Object.entries(options).filter(([name]) => !name.startsWith('unused')))
        assert.deepEqual(optionErrors(rest), {})
        assert.ok(log.length + warn.length <= 102)
        assert.ok(
          Object.values(options).some((text) => text.startsWith(volid)),
          'the disk is lost',
        )
      }),
      { numRuns: 200 },
    )
  })

  test('that is no text, or too long, is damaged', () => {
    for (const content of [Buffer.from([0xff, 0xfe, 0xff]), Buffer.alloc(65_537, 0x20)]) {
      assert.throws(
        () => parseForeignConf(content),
        (fault) => isFault(fault, 'damaged'),
      )
    }
    const { disks, ...rest } = parseForeignConf(Buffer.from(conf))
    const twice = { ...rest, disks: [...disks, { drive: 'scsi0', device: 'drive-virtio0' }] }
    assert.throws(() => drivesOfDevices(twice, ['drive-scsi0', 'drive-virtio0']), /holds drive scsi0 twice/)
    assert.throws(() => drivesOfDevices({ ...rest, disks: [] }, ['../../etc']), /no drive of a guest/)
  })
})
