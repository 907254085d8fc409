/** UEFI, secure boot and TPM of real guests, what becomes of their state in copies, and scripts around start and stop. */
import assert from 'node:assert/strict'
import { chmod, chown, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { ensureGuestImage, type GuestImage } from '#lab/guest-image.ts'
import { endorsementKeyOf } from '../fixtures/tpm.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('firmware of guests', { timeout: 900_000 }, () => {
  let node: TestNode
  let image: GuestImage
  let at: (vmid: number) => string
  before(async () => {
    node = await nodeUnderTest()
    at = (vmid) => `/nodes/${node.settings.node}/qemu/${vmid}`
    image = await ensureGuestImage({ host: machine(), cacheDir: node.settings.cacheDir })
  })
  after(() => node[Symbol.asyncDispose]())

  /** The firmware is given a kernel that nobody it trusts has signed. */
  const create = async (vmid: number, efidisk0: string, more: Readonly<Record<string, string>> = {}) => {
    const args = `-kernel ${image.kernel} -initrd ${image.initrd} -append "console=ttyS0 quiet panic=-1"`
    const guest = { vmid: String(vmid), memory: '320', bios: 'ovmf', efidisk0, serial0: 'socket', agent: '1', args }
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/qemu`, { ...guest, ...more }))
  }
  const start = async (vmid: number, expected?: RegExp) =>
    node.task(await node.api('POST', `${at(vmid)}/status/start`), expected)
  const stop = async (vmid: number) => node.task(await node.api('POST', `${at(vmid)}/status/stop`))
  const config = async (vmid: number) => (await node.api('GET', `${at(vmid)}/config`)) as Record<string, string>
  const logOf = (vmid: number, name: string) =>
    readFile(join(node.settings.runDir, 'guests', String(vmid), name), 'utf8').catch(() => '')
  const content = async (vmid: number, drive: string) => {
    const [volid = ''] = ((await config(vmid))[drive] ?? '').split(',')
    const images = join(node.settings.stateDir, 'storage/local/images')
    return readFile(join(images, volid.slice(volid.indexOf(':') + 1)))
  }

  test('a guest boots by UEFI, with secure boot in force, and finds its TPM', async () => {
    await create(100, 'local:1,efitype=4m,pre-enrolled-keys=1', { tpmstate0: 'local:1,version=v2.0' })
    const { efidisk0, tpmstate0 } = await config(100)
    assert.match(efidisk0 ?? '', /^local:100\/vm-100-disk-0\.raw,efitype=4m,pre-enrolled-keys=1,size=528K$/)
    assert.match(tpmstate0 ?? '', /^local:100\/vm-100-disk-1\.raw,size=4M,version=v2\.0$/)
    await start(100)
    await waitFor(
      () =>
        node.api('POST', `${at(100)}/agent/ping`).then(
          () => true,
          () => false,
        ),
      {
        what: 'the agent',
        timeoutMs: 120_000,
        everyMs: 100,
      },
    )
    assert.equal(await node.sh(100, 'cat /sys/firmware/efi/fw_platform_size'), '64')
    assert.equal(await node.sh(100, 'ls /sys/firmware/acpi/tables | grep TPM'), 'TPM2')
    assert.match(await node.sh(100, 'dmesg'), /secureboot: Secure boot enabled/)
    assert.equal(await node.sh(100, 'cat /sys/class/tpm/tpm0/tpm_version_major'), '2')
    assert.match(await logOf(100, 'swtpm.log'), /Formatting/)
    const uid = String(node.settings.uidBase + 100)
    const { stdout } = await machine().run(['ps', '-o', 'user:20=,args=', '-C', 'swtpm'])
    assert.match(stdout, new RegExp(`^\\s*${uid}\\s+swtpm socket --tpm2 .*vm-100-disk-1\\.raw`, 'm'))
  })

  test('a copy of the running guest has what its firmware and TPM remember', async () => {
    const [efi, tpm] = [await content(100, 'efidisk0'), await content(100, 'tpmstate0')]
    assert.ok(tpm.some((byte) => byte !== 0))
    await node.task(await node.api('POST', `${at(100)}/clone`, { newid: '101', full: '1' }))
    await node.api('POST', '/storage', {
      storage: 'vault',
      type: 'dir',
      path: join(node.settings.stateDir, 'vault'),
      content: 'backup',
    })
    await node.task(
      await node.api('POST', `/nodes/${node.settings.node}/vzdump`, {
        vmid: '100',
        storage: 'vault',
        mode: 'snapshot',
      }),
    )
    const backups = (await node.api('GET', `/nodes/${node.settings.node}/storage/vault/content`)) as Reply[]
    const archive = String(backups[0]?.volid)
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/qemu`, { vmid: '102', archive, unique: '1' }))
    for (const vmid of [101, 102]) {
      assert.ok(efi.equals(await content(vmid, 'efidisk0')), `variables of ${vmid}`)
      assert.ok(tpm.equals((await content(vmid, 'tpmstate0')).subarray(0, tpm.length)), `TPM of ${vmid}`)
    }
    const { log } = await node.task(await node.api('POST', `${at(100)}/snapshot`, { snapname: 'never' }), /snapshot/)
    assert.match(log, /snapshot/)
  })

  test('the TPM goes on with what it remembers after a restart, and leaves with the guest', async () => {
    await stop(100)
    const remembered = await content(100, 'tpmstate0')
    await start(100)
    assert.doesNotMatch(await logOf(100, 'swtpm.log'), /Formatting/)
    await stop(100)
    // Its counters move with every start; whoever has sealed something with its keys finds the same keys.
    const key = await endorsementKeyOf(remembered)
    assert.equal(await endorsementKeyOf(await content(100, 'tpmstate0')), key)
    assert.notEqual(await endorsementKeyOf(Buffer.alloc(remembered.length)), key, 'a new TPM has keys of its own')
    const { stdout } = await machine().run(['ps', '-o', 'args=', '-C', 'swtpm'], { okCodes: [0, 1] })
    assert.doesNotMatch(stdout, new RegExp(node.settings.instance))
  })

  test('variables in qcow2 take part in snapshots of the running guest', async () => {
    await create(103, 'local:1,format=qcow2', { machine: 'pc' })
    assert.match((await config(103)).efidisk0 ?? '', /^local:103\/vm-103-disk-0\.qcow2,size=128K$/)
    await start(103)
    await node.task(await node.api('POST', `${at(103)}/snapshot`, { snapname: 'kept' }))
    await node.task(await node.api('DELETE', `${at(103)}/snapshot/kept`))
    await node
      .api('PUT', `${at(103)}/resize`, { disk: 'efidisk0', size: '+1M' })
      .then((upid) => node.task(upid, /Parameter verification/))
    await stop(103)
  })

  test('what the machine does not have is said at the start, and nothing remains', async () => {
    const guest = { vmid: '104', memory: '32', vga: 'none' }
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/qemu`, guest))
    for (const [options, expected] of [
      [{ hugepages: '2' }, /needs 16 huge pages of 2 MiB, and the node has 0 free/],
      [{ affinity: '4000' }, /affinity names processor 4000/],
      [{ usb0: 'ffff:ffff' }, /USB device ffff:ffff is not plugged in here/],
      [{ hostpci0: 'ff:1f.7' }, /there is no PCI device 'ff:1f\.7'/],
      [{ hostpci0: '00:01.0' }, /has no IOMMU in force for '00:01\.0'/],
      [{ numa: '1', numa0: 'cpus=0,memory=32,hostnodes=77,policy=bind' }, /names memory node 77/],
      [{ serial1: '/dev/absent' }, /\/dev\/absent/],
      [{ cpu: 'custom-absent' }, /custom cputype 'absent' does not exist/],
    ] as const) {
      await node.api('PUT', `${at(104)}/config`, { ...options })
      await start(104, expected)
      await node.api('PUT', `${at(104)}/config`, { delete: Object.keys(options).join(',') })
    }
    await assert.rejects(
      node.api('PUT', `${at(104)}/config`, { machine: 'pc-q35-99.1' }),
      (fault) =>
        isFault(fault) && /does not know 'pc-q35-99\.1': its newest are pc-q35-/.test(String(fault.fields?.machine)),
    )
    for (const [name, value] of [
      ['amd-sev', 'std'],
      ['intel-tdx', 'tdx'],
    ] as const) {
      await assert.rejects(
        node.api('PUT', `${at(104)}/config`, { [name]: value }),
        (fault) => isFault(fault) && /this machine|not supported/.test(String(fault.fields?.[name])),
      )
    }
    await start(104)
    await stop(104)
  })

  test('a processor of the owner’s making has the flags it was made with', async () => {
    const flag = async (name: string) =>
      String(
        await node.api('POST', `${at(104)}/monitor`, { command: `qom-get /machine/unattached/device[0] ${name}` }),
      ).trim()
    await node.api('POST', '/cluster/qemu/custom-cpu-models', {
      cputype: 'plain',
      'reported-model': 'max',
      flags: '-aes;-sse4.2',
    })
    await node.api('PUT', `${at(104)}/config`, { cpu: 'custom-plain,flags=+sse4.2' })
    await start(104)
    assert.deepEqual([await flag('aes'), await flag('sse4.2'), await flag('sse4.1')], ['false', 'true', 'true'])
    await stop(104)
    await node.api('PUT', `${at(104)}/config`, { delete: 'cpu' })
  })

  test('a hook script sees every phase as its owner, and can refuse a start', async () => {
    const snippets = join(node.settings.stateDir, 'storage/local/snippets')
    await mkdir(snippets, { recursive: true, mode: 0o755 })
    await node.api('PUT', '/storage/local', { content: 'images,iso,snippets' })
    const [script, told] = [join(snippets, 'hook.sh'), join(node.settings.stateDir, 'told')]
    await writeFile(told, '')
    await chmod(told, 0o666)
    await writeFile(
      script,
      `#!/bin/sh\necho "$1 $2 $(id -u)" >> ${told}\ntest ! -e ${told}.refuse -o "$2" != pre-start\n`,
      { mode: 0o755 },
    )
    await chown(script, 65_534, 65_534)
    await node.api('PUT', `${at(104)}/config`, { hookscript: 'local:snippets/hook.sh' })
    await start(104)
    await stop(104)
    const phases = ['pre-start', 'post-start', 'pre-stop', 'post-stop']
    assert.deepEqual(
      (await readFile(told, 'utf8')).trim().split('\n'),
      phases.map((phase) => `104 ${phase} 65534`),
    )
    await writeFile(`${told}.refuse`, '')
    await start(104, /hookscript error for 104 on pre-start/)
    assert.equal(((await node.api('GET', `${at(104)}/status/current`)) as Reply).status, 'stopped')
    await rm(`${told}.refuse`)
    await chmod(script, 0o777)
    await start(104, /others than its owner can change/)
  })
})
