/** When each pack was last compared with its name, so that whoever looks at some of them begins with the oldest. */
import { idBytes } from '../format.ts'
import type { Place } from '../places/place.ts'
import { ifAllowed, type Onlooker } from './if-allowed.ts'

const name = 'checked'
const magic = Buffer.from('HAKOCHK2', 'latin1')
const entryBytes = idBytes + 8
const maximumBytes = magic.length + 4 * 1024 * 1024 * entryBytes

/** Seconds since 1970 by pack. What cannot be read is begun anew: it only says what to look at first. */
export async function readChecked(place: Place): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  const content = await place.get(name, maximumBytes)
  const isWhole = content?.subarray(0, magic.length).equals(magic) && (content.length - magic.length) % entryBytes === 0
  if (!content || !isWhole) return found
  for (let at = magic.length; at < content.length; at += entryBytes) {
    found.set(content.toString('hex', at, at + idBytes), Number(content.readBigUInt64LE(at + idBytes)))
  }
  return found
}

export async function writeChecked(
  place: Place,
  checked: ReadonlyMap<string, number>,
  onlooker: Onlooker,
): Promise<void> {
  const content = Buffer.alloc(magic.length + checked.size * entryBytes)
  magic.copy(content)
  let at = magic.length
  for (const [pack, time] of checked) {
    content.write(pack, at, 'hex')
    content.writeBigUInt64LE(BigInt(time), at + idBytes)
    at += entryBytes
  }
  await ifAllowed(onlooker, () => place.replace(name, content))
}
