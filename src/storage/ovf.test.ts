import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { ovfText } from '../../test/fixtures/ovf.ts'
import { parseOvf } from './ovf.ts'

const one = [{ file: 'web-disk1.vmdk', mib: 64 }]
const isDamaged = (fault: unknown) => isFault(fault, 'damaged')

suite('an OVF description', () => {
  test('tells what a machine is made of', () => {
    assert.deepEqual(parseOvf(ovfText({ disks: [...one, { file: 'web-disk2.vmdk', mib: 8 }] })), {
      name: 'web-server',
      cores: 2,
      memoryMiB: 192,
      ostype: 'l26',
      isEfi: false,
      scsihw: 'pvscsi',
      disks: [
        { drive: 'scsi0', file: 'web-disk1.vmdk', sizeBytes: 64 * MiB },
        { drive: 'scsi1', file: 'web-disk2.vmdk', sizeBytes: 8 * MiB },
      ],
      nics: [{ model: 'vmxnet3', macaddr: '00:50:56:AB:CD:EF' }],
      warnings: [],
    })
  })

  test('puts disks on the bus their controller is of', () => {
    const drives = (type: number, kind: string) =>
      parseOvf(ovfText({ disks: one, controller: { type, kind } })).disks.map(({ drive }) => drive)
    assert.deepEqual([drives(5, 'PIIX4'), drives(20, 'AHCI'), drives(6, 'lsilogic')], [['ide0'], ['sata0'], ['scsi0']])
    const nvme = parseOvf(ovfText({ disks: one, controller: { type: 20, kind: 'vmware.nvme.controller' } }))
    assert.deepEqual([nvme.disks[0]?.drive, nvme.warnings], ['scsi0', [{ type: 'nvme-unsupported', key: 'scsi0' }]])
  })

  test('warns of what is lost', () => {
    const cdrom = `<Item><rasd:HostResource>ovf:/file/iso</rasd:HostResource><rasd:InstanceID>8</rasd:InstanceID><rasd:ResourceType>15</rasd:ResourceType></Item>`
    const efi = '<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>'
    const { isEfi, warnings } = parseOvf(ovfText({ disks: one, more: cdrom + efi }))
    assert.deepEqual([isEfi, warnings.map(({ type }) => type)], [true, ['cdrom-image-ignored', 'efi-state-lost']])
  })

  test('is refused where it would not be what was exported', () => {
    const text = ovfText({ disks: one })
    assert.throws(() => parseOvf(text.replace('ovf:fileRef="file0"', '')), /a disk without a file/)
    assert.throws(
      () => parseOvf(text.replace('ovf:id="file0"', 'ovf:id="file0" ovf:compression="gzip"')),
      /compressed disk/,
    )
    assert.throws(
      () => parseOvf(text.replaceAll('VirtualSystem', 'VirtualSystemCollection')),
      /describes 0 virtual machines/,
    )
    assert.throws(() => parseOvf('<Envelope/>'), isDamaged)
    assert.throws(() => parseOvf('<other/>'), /no OVF description/)
    assert.throws(() => parseOvf('no xml'), /not well-formed/)
  })

  test('brings in nothing from elsewhere, and does not grow', () => {
    const text = ovfText({ disks: one, name: '&x;' })
    const bomb = '<!DOCTYPE x [<!ENTITY x "ha">]>'
    assert.throws(() => parseOvf(text.replace('<Envelope', `${bomb}<Envelope`)), /document type, which is not accepted/)
    assert.throws(() => parseOvf(text), isDamaged)
    assert.throws(
      () => parseOvf(ovfText({ disks: one, name: 'x'.repeat(MiB) })),
      (fault) => isFault(fault, 'too-large'),
    )
    const deep = `${'<a>'.repeat(100_000)}${'</a>'.repeat(100_000)}`
    assert.throws(() => parseOvf(ovfText({ disks: one, name: deep })), isFault)
  })

  test('whatever its values, ends in a machine or in a fault', () => {
    const text = ovfText({ disks: one })
    const values = [...text.matchAll(/>([^<\n]+)<|"([^"]*)"/g)].map(({ index }) => index + 1)
    fc.assert(
      fc.property(fc.constantFrom(...values), fc.string({ unit: 'binary', maxLength: 20 }), (at, noise) => {
        const changed = text.slice(0, at) + noise + text.slice(at + 1)
        try {
          const { disks, cores = 1, memoryMiB = 16 } = parseOvf(changed)
          assert.ok(disks.length <= 1 && cores >= 1 && memoryMiB >= 16)
        } catch (fault) {
          assert.ok(isFault(fault), String(fault))
        }
      }),
      { numRuns: 500 },
    )
  })
})
