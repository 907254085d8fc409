/** What is told to metric servers: how one thing is at one moment, as numbers in groups. */

export interface Sample {
  readonly kind: 'nodes' | 'qemu' | 'lxc' | 'storages'
  readonly node: string
  /** Name of the node or storage, number of the guest. */
  readonly id: string
  /** Name of a guest, type of a storage. */
  readonly label?: string
  readonly values: Values
  /** Values of parts, such as `memory`, or of one card among `nics`. */
  readonly groups?: Readonly<Record<string, Values | Readonly<Record<string, Values>>>>
}

export type Values = Readonly<Record<string, number | undefined>>

/** The values under each name, with the way to them: `cpu`, `memory`/`memused`, `nics`/`eth0`/`receive`. */
export interface Group {
  /** Empty for what belongs to the thing itself. */
  readonly name: string
  /** Which one, where there are several. */
  readonly instance?: string
  readonly values: readonly (readonly [string, number])[]
}

export function groupsOf({ values, groups = {} }: Sample): Group[] {
  const own: Group = { name: '', values: numbersIn(values) }
  const others = Object.entries(groups).flatMap(([name, group]): Group[] => {
    const isNested = Object.values(group).some((value) => typeof value === 'object')
    if (!isNested) return [{ name, values: numbersIn(group) }]
    return Object.entries(group).map(([instance, inner]) => {
      return { name, instance, values: typeof inner === 'object' ? numbersIn(inner) : [] }
    })
  })
  return [own, ...others].filter(({ values: found }) => found.length > 0)
}

function numbersIn(values: Readonly<Record<string, unknown>>): [string, number][] {
  return Object.entries(values).filter(
    (entry): entry is [string, number] => typeof entry[1] === 'number' && Number.isFinite(entry[1]),
  )
}
