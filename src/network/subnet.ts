/** IPv4 networks as values: `10.181.3.0/24` and what follows from it. */
import { Fault } from '#base/fault.ts'

export interface Subnet {
  /** First address, as a number. */
  readonly base: number
  readonly prefix: number
}

/**
 * Reads `10.181.3.0/24`, `10.181.3.1/24` (the network around an address), or a lone address as its /32.
 * @throws Fault `invalid`.
 */
export function parseSubnet(text: string): Subnet {
  const match = /^([\d.]+)(?:\/(\d{1,2}))?$/.exec(text)
  const [address, prefix] = [parseAddress(match?.[1] ?? ''), Number(match?.[2] ?? 32)]
  if (address === undefined || prefix > 32)
    throw new Fault('invalid', `'${text}' is no IPv4 network such as 10.0.0.0/24`)
  return { base: address - (address % sizeOf(prefix)), prefix }
}

/** The number of an address, or nothing when it is none. */
export function parseAddress(text: string): number | undefined {
  const bytes = text.split('.')
  if (bytes.length !== 4 || !bytes.every((byte) => /^(0|[1-9]\d{0,2})$/.test(byte) && Number(byte) < 256))
    return undefined
  return bytes.reduce((sum, byte) => sum * 256 + Number(byte), 0)
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')
}

export function formatSubnet({ base, prefix }: Subnet): string {
  return `${formatAddress(base)}/${prefix}`
}

/** Its `count`th address; counted from the end when negative, -1 being the broadcast address. */
export function addressIn({ base, prefix }: Subnet, count: number): string {
  return formatAddress(count < 0 ? base + sizeOf(prefix) + count : base + count)
}

export function netmaskOf(prefix: number): string {
  return formatAddress(2 ** 32 - sizeOf(prefix))
}

export function contains(subnet: Subnet, address: number): boolean {
  return address >= subnet.base && address < subnet.base + sizeOf(subnet.prefix)
}

/** Whether they share an address: one of them then lies inside the other. */
export function overlaps(one: Subnet, other: Subnet): boolean {
  return contains(one, other.base) || contains(other, one.base)
}

/** An address a guest has, and the size of its network. */
export interface GuestAddress {
  readonly address: string
  readonly prefix: number
  readonly gateway?: string | undefined
}

/**
 * Where somebody whom the guest can answer stands: in the place of its gateway, or else another one in its network.
 * Nothing when it is in the network that is `known`, or alone in its own.
 */
export function placeBeside({ address, prefix, gateway }: GuestAddress, known: Subnet): string | undefined {
  const own = parseAddress(address)
  if (own === undefined || contains(known, own)) return undefined
  if (gateway !== undefined && parseAddress(gateway) !== undefined && gateway !== address) return gateway
  const subnet = parseSubnet(`${address}/${prefix}`)
  const places = prefix > 31 ? [] : prefix === 31 ? [0, 1] : [1, 2]
  return places.map((count) => addressIn(subnet, count)).find((place) => place !== address)
}

function sizeOf(prefix: number): number {
  return 2 ** (32 - prefix)
}
