/**
 * Which key file of a datastore counts: the highest of those its signer has signed.
 *
 * Whoever may write where a datastore lies can put a file there with a higher number. It opens to nothing of ours, so going by
 * the number alone would shut everybody out; it is passed over, and so is one that is damaged. What came before key files were
 * signed counts only as long as none is: then a key tells which of them is the datastore's.
 */
import { Fault, isFault } from '#base/fault.ts'
import { keyFileMaximumBytes } from '../format.ts'
import type { Place } from '../places/place.ts'
import { isGenuine, type KeyFile, keyFileName, parseKeyFile } from './key-file.ts'

export interface FoundKeys {
  /** The one that counts. Of those that are not signed all there are, the highest first. */
  readonly files: readonly [KeyFile, ...KeyFile[]]
  /** Of a higher number, and for nothing. */
  readonly passedOver: readonly PassedOver[]
  /** Numbers that are taken, whoever took them. */
  readonly taken: ReadonlySet<number>
}

export interface PassedOver {
  readonly name: string
  readonly why: string
}

/** @throws Fault `damaged` when there is none */
export async function findKeys(
  place: Place,
  { id, signer }: { readonly id: string; readonly signer: Buffer },
): Promise<FoundKeys> {
  const numbers: number[] = []
  for await (const { name } of place.list('keys/')) {
    if (/^keys\/\d{8}$/.test(name)) numbers.push(Number(name.slice(-8)))
  }
  const taken = new Set(numbers)
  const passedOver: PassedOver[] = []
  const unsigned: KeyFile[] = []
  for (const number of numbers.toSorted((a, b) => b - a)) {
    const found = await keyFileAt(place, number, id)
    if ('why' in found) {
      passedOver.push(found)
      continue
    }
    if (found.signature === undefined) unsigned.push(found)
    else if (isGenuine(found, signer)) {
      const others = unsigned.map(({ generation }) => passed(generation, 'nothing proves that it is of this datastore'))
      return { files: [found], passedOver: [...passedOver, ...others], taken }
    } else passedOver.push(passed(number, 'it is not signed by this datastore'))
  }
  const [highest, ...others] = unsigned
  if (highest) return { files: [highest, ...others], passedOver, taken }
  const [first] = passedOver
  throw new Fault('damaged', first ? `'${first.name}': ${first.why}` : `the datastore '${place.label}' has no keys`, {
    remedy: 'Fetch them from a copy of the datastore: hako datastore repair --from <copy>.',
  })
}

/** Above all that count, and free. */
export function numberAfter({ generation }: KeyFile, { taken }: Pick<FoundKeys, 'taken'>): number {
  let number = generation + 1
  while (taken.has(number)) number += 1
  return number
}

async function keyFileAt(place: Place, number: number, id: string): Promise<KeyFile | PassedOver> {
  const name = keyFileName(number)
  try {
    const text = await place.get(name, keyFileMaximumBytes)
    if (!text) return passed(number, 'it is gone')
    const file = parseKeyFile(text.toString('utf8'), `'${name}'`)
    if (file.datastore !== id) return passed(number, 'it holds the keys of another datastore')
    // One of ours that somebody has put under another name.
    return file.generation === number ? file : passed(number, `it is number ${file.generation}`)
  } catch (fault) {
    if (isFault(fault, 'damaged') || isFault(fault, 'too-large')) return passed(number, (fault as Fault).message)
    throw fault
  }
}

function passed(number: number, why: string): PassedOver {
  return { name: keyFileName(number), why }
}
