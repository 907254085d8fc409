import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { parseBlockDevices, parseSmart } from '../disks/block-devices.ts'
import { mediatedTypes, parseNames, pciDevices, usbDevices } from './devices.ts'
import { parsePressure } from '../network/network-counters.ts'
import { parseMachineTypes, parseProcessorModels } from '../qemu/qemu-abilities.ts'

async function sysfs(files: Readonly<Record<string, string>>) {
  const root = await mkdtemp(join(tmpdir(), 'hako-sys-'))
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(root, path, '..'), { recursive: true })
    await writeFile(join(root, path), `${text}\n`)
  }
  return { root, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) }
}

test('a card is told with its group and what it can be split into', async () => {
  const at = 'bus/pci/devices/0000:01:00.0'
  await using sys = await sysfs({
    [`${at}/class`]: '0x030000',
    [`${at}/vendor`]: '0x10de',
    [`${at}/device`]: '0x1db6',
    [`${at}/mdev_supported_types/nvidia-1/name`]: 'GRID V100-1Q',
    [`${at}/mdev_supported_types/nvidia-1/description`]: 'num_heads=4',
    [`${at}/mdev_supported_types/nvidia-1/available_instances`]: '16',
  })
  await symlink('../../kernel/iommu_groups/17', join(sys.root, at, 'iommu_group'))
  assert.deepEqual(await pciDevices(sys.root), [
    {
      id: '0000:01:00.0',
      class: '0x030000',
      vendor: '0x10de',
      device: '0x1db6',
      subsystemVendor: undefined,
      subsystemDevice: undefined,
      iommuGroup: 17,
      hasMediated: true,
    },
  ])
  assert.deepEqual(await mediatedTypes('01:00.0', sys.root), [
    { type: 'nvidia-1', name: 'GRID V100-1Q', description: 'num_heads=4', available: 16 },
  ])
  assert.deepEqual(await mediatedTypes('02:00.0', sys.root), [])
})

test('a stick is told by where it is plugged in', async () => {
  const files = {
    busnum: '1',
    devnum: '7',
    bDeviceClass: '00',
    idVendor: '0781',
    idProduct: '5581',
    speed: '5000',
    product: 'Ultra',
  }
  const named = Object.entries(files).map(([name, text]) => [`bus/usb/devices/1-2.3/${name}`, text])
  await using sys = await sysfs({ ...Object.fromEntries(named), 'bus/usb/devices/1-2.3:1.0/bInterfaceClass': '08' })
  const [stick, ...others] = await usbDevices(sys.root)
  assert.deepEqual(others, [])
  assert.deepEqual(
    [stick?.bus, stick?.device, stick?.vendor, stick?.level, stick?.port, stick?.path, stick?.productName],
    [1, 7, '0781', 2, 2, '2.3', 'Ultra'],
  )
})

test('names of devices are found by vendor and device', () => {
  const names = parseNames(
    '# remark\n10de  NVIDIA Corporation\n\t1db6  GV100GL [Tesla V100]\n\t\t10de 1215  Card\nC 03  Display controller\n\t00  VGA\n',
  )
  assert.deepEqual(
    [...names],
    [
      ['10de', 'NVIDIA Corporation'],
      ['10de:1db6', 'GV100GL [Tesla V100]'],
    ],
  )
})

test('disks are read with what is on them', () => {
  const text = JSON.stringify({
    blockdevices: [
      {
        path: '/dev/sda',
        type: 'disk',
        size: 1000,
        model: 'X ',
        rota: true,
        pttype: 'gpt',
        mountpoints: [null],
        children: [
          { path: '/dev/sda1', type: 'part', size: 500, fstype: 'ext4', mountpoints: ['/', null], rota: true },
        ],
      },
    ],
  })
  const [disk] = parseBlockDevices(text)
  assert.deepEqual([disk?.model, disk?.partitionTable, disk?.children[0]?.mountPoints], ['X', 'gpt', ['/']])
})

test('a disk says how it is, or why it cannot be asked', () => {
  const ata = {
    smart_status: { passed: true },
    ata_smart_attributes: {
      table: [
        {
          id: 5,
          name: 'Reallocated_Sector_Ct',
          value: 100,
          worst: 100,
          thresh: 10,
          when_failed: '',
          flags: { string: 'PO--CK ' },
          raw: { string: '0' },
        },
      ],
    },
  }
  const report = parseSmart(JSON.stringify(ata))
  assert.deepEqual(
    [report.health, report.type, report.attributes?.[0]?.id, report.attributes?.[0]?.fail],
    ['PASSED', 'ata', '  5', '-'],
  )
  const nvme = parseSmart(
    JSON.stringify({ smart_status: { passed: false }, nvme_smart_health_information_log: { percentage_used: 3 } }),
  )
  assert.deepEqual([nvme.health, nvme.type, nvme.text], ['FAILED', 'text', 'percentage used: 3'])
  assert.throws(
    () => parseSmart(JSON.stringify({ smartctl: { messages: [{ string: '/dev/x: Unable to detect device type' }] } })),
    (error) => isFault(error, 'failed'),
  )
})

test('machine types are listed newest first, and nothing else is one', () => {
  const text =
    'Supported machines are:\nmicrovm              microvm (i386)\npc                   Standard PC (alias of pc-i440fx-10.0)\npc-i440fx-9.2        Standard PC\npc-i440fx-10.0       Standard PC (default)\npc-q35-10.0          Standard PC\nq35                  Standard PC (alias)\nnone                 empty machine\n'
  assert.deepEqual(
    parseMachineTypes(text).map(({ id }) => id),
    ['pc-i440fx-10.0', 'pc-q35-10.0', 'pc-i440fx-9.2'],
  )
})

test('processors and their flags are read from both spellings of QEMU', () => {
  const old =
    'Available CPUs:\nx86 EPYC                  (alias)\nx86 max                   Enables all\n\nRecognized CPUID flags:\n  3dnow abm\n  aes\n'
  const fresh =
    'Available CPUs:\n  EPYC                  (alias)\n  max                   Enables all\n\nRecognized CPUID flags:\n  3dnow abm\n  aes\n'
  for (const text of [old, fresh]) {
    assert.deepEqual(parseProcessorModels(text), { models: ['EPYC', 'max'], flags: ['3dnow', 'abm', 'aes'] })
  }
})

test('pressure is a share', () => {
  const text = 'some avg10=12.50 avg60=1.00 avg300=0.10 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n'
  assert.deepEqual(parsePressure(text), { some: 0.125, full: 0 })
  assert.deepEqual(parsePressure(''), {})
})
