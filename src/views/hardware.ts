/** Devices of a node as clients read them. */
import type { DeviceNames, PciDevice, UsbDevice } from '#host/system/devices.ts'

export function pciItem(device: PciDevice, names: DeviceNames) {
  const short = (number: string) => number.replace(/^0x/, '')
  const nameOf = (vendor: string, model: string) => names.get(`${short(vendor)}:${short(model)}`)
  const { vendor, subsystemVendor, subsystemDevice } = device
  return {
    id: device.id,
    class: device.class,
    vendor,
    device: device.device,
    iommugroup: device.iommuGroup,
    ...(device.hasMediated ? { mdev: true } : {}),
    ...given('vendor_name', names.get(short(vendor))),
    ...given('device_name', nameOf(vendor, device.device)),
    ...given('subsystem_vendor', subsystemVendor),
    ...given('subsystem_device', subsystemDevice),
    ...given('subsystem_vendor_name', names.get(short(subsystemVendor ?? ''))),
  }
}

export function usbItem(device: UsbDevice) {
  return {
    busnum: device.bus,
    devnum: device.device,
    class: device.class,
    level: device.level,
    port: device.port,
    vendid: device.vendor,
    prodid: device.product,
    speed: device.speed,
    ...given('usbpath', device.path === '' ? undefined : device.path),
    ...given('manufacturer', device.manufacturer),
    ...given('product', device.productName),
    ...given('serial', device.serial),
  }
}

function given<const Name extends string>(name: Name, value: string | undefined): { readonly [N in Name]?: string } {
  return value === undefined ? {} : ({ [name]: value } as { readonly [N in Name]?: string })
}
