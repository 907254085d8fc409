import { nodeUnderTest } from './test/node-under-test.ts'
await using node = await nodeUnderTest()
const guest = '/nodes/testnode/qemu/100'
await node.boot(100, { })
await node.api('PUT', `${guest}/config`, { virtio2: 'local:0.02,serial=xyz', scsi3: 'local:0.01,serial=ABC-3,ssd=1' })
await new Promise((r) => setTimeout(r, 3000))
console.log(await node.sh(100, 'modprobe virtio_blk; ls -la /sys/block; lsmod; dmesg | tail -30; cat /sys/block/sdb/queue/rotational; cat /sys/block/sdb/device/vpd_pg80; ls /sys/block/vda; ls /lib/modules/*; ls -la /sys/firmware/acpi/tables /sys/class/tpm'))
console.log(await node.api('GET', `${guest}/pending`))
