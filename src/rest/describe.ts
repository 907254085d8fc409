/**
 * The API described in PVE's own words: the field names of its published schema, so that a program can lay
 * the two side by side and see every difference. Pure; reads endpoints, invents nothing.
 */
import type { PropertyFormat, Properties, Schema } from '#base/schema/schema.ts'
import type { Endpoint, Method, Permission } from './endpoint.ts'

export type Described = Readonly<Record<string, unknown>>

export interface MethodDescription {
  readonly path: string
  readonly method: Method
  readonly description: string
  readonly params: Readonly<Record<string, Described>>
  readonly returns: Described
  /** `null` is root@pam alone. */
  readonly permissions: Described | null
  readonly proxyto?: string
  readonly allowtoken?: false
  readonly extraParams?: true
  /** Ours, without a counterpart in PVE. */
  readonly own?: true
}

/** One entry per method, sorted by path, then GET, POST, PUT, DELETE. */
export function describe<Call>(endpoints: readonly Endpoint<Call>[]): MethodDescription[] {
  const order: readonly Method[] = ['GET', 'POST', 'PUT', 'DELETE']
  return endpoints
    .map(describeEndpoint)
    .toSorted((a, b) => compare(a.path, b.path) || order.indexOf(a.method) - order.indexOf(b.method))
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

function describeEndpoint<Call>(endpoint: Endpoint<Call>): MethodDescription {
  const permissions = describePermission(endpoint.permission)
  return {
    path: endpoint.path.replace('*}', '}'),
    method: endpoint.method,
    description: endpoint.description,
    params: describeFamilies(endpoint.params),
    returns: describeSchema(endpoint.returns),
    permissions: endpoint.alsoNeeds
      ? { ...permissions, moreInProse: true, description: endpoint.alsoNeeds.says }
      : permissions,
    ...(endpoint.proxyTo === undefined ? {} : { proxyto: endpoint.proxyTo }),
    ...(endpoint.refusesTokens ? { allowtoken: false as const } : {}),
    ...(endpoint.allowsExtra ? { extraParams: true as const } : {}),
    ...(endpoint.isOwn ? { own: true as const } : {}),
  }
}

function describePermission(permission: Permission): Described | null {
  switch (permission.kind) {
    case 'root':
      return null
    case 'world':
      return { user: 'world' }
    case 'anyone':
      return { user: 'all' }
    case 'check':
    case 'modify':
    case 'self':
    case 'all':
    case 'any':
      return { check: expressionOf(permission) }
    default:
      return permission satisfies never
  }
}

function expressionOf(permission: Permission): readonly unknown[] {
  switch (permission.kind) {
    case 'check':
      if (permission.path.startsWith('/access/users/{')) return userExpression(permission.privileges)
      return ['perm', permission.path, permission.privileges, ...(permission.needs === 'any' ? ['any', 1] : [])]
    case 'modify':
      return ['perm-modify', permission.path]
    case 'self':
      return ['userid-param', 'self']
    case 'all':
      return ['and', ...permission.of.map(expressionOf)]
    case 'any':
      return ['or', ...permission.of.map(expressionOf)]
    case 'root':
    case 'world':
    case 'anyone':
      return ['user', permission.kind === 'anyone' ? 'all' : permission.kind]
    default:
      return permission satisfies never
  }
}

/** Rights over a user are no ACL path there: one is held on the realm of the user, the others on one of his groups. */
function userExpression(privileges: readonly string[]): readonly unknown[] {
  const onRealm = 'Realm.AllocateUser'
  const onGroups = privileges.filter((privilege) => privilege !== onRealm)
  const parts = [
    ...(privileges.includes(onRealm) ? [['userid-param', onRealm]] : []),
    ...(onGroups.length > 0 ? [['userid-group', onGroups]] : []),
  ]
  return parts.length === 1 ? (parts[0] ?? []) : ['and', ...parts]
}

/** `scsi0 … scsi30` of one shape become `scsi[n]`. */
export function describeFamilies(properties: Properties): Record<string, Described> {
  const described: Record<string, Described> = {}
  const families = familiesIn(properties)
  for (const [name, schema] of Object.entries(properties)) {
    const stem = /^(.*?)\d+$/.exec(name)?.[1] ?? ''
    const key = families.has(stem) ? `${stem}[n]` : name
    described[key] ??= describeSchema(schema)
  }
  return described
}

/** Stems whose members 0 and 1 exist and look alike; `ip4` beside `ip6` is none. */
export function familiesIn(properties: Properties): ReadonlySet<string> {
  const stems = new Set<string>()
  for (const name of Object.keys(properties)) {
    const stem = /^(.*\D)0$/.exec(name)?.[1]
    const [first, second] = stem === undefined ? [] : [properties[`${stem}0`], properties[`${stem}1`]]
    const isFamily = first && second && JSON.stringify(describeSchema(first)) === JSON.stringify(describeSchema(second))
    if (stem !== undefined && isFamily) stems.add(stem)
  }
  return stems
}

export function describeSchema(schema: Schema): Described {
  const { type, description, minimum, maximum, minLength, maxLength, requires, additionalProperties } = schema
  const facts = {
    type,
    description,
    optional: schema.isOptional ? true : undefined,
    default: schema.default,
    enum: schema.enum,
    minimum,
    maximum,
    minLength,
    maxLength,
    pattern: schema.pattern && describePattern(schema.pattern),
    format: typeof schema.format === 'object' ? describeFormat(schema.format) : schema.format,
    requires,
    items: schema.items && describeSchema(schema.items),
    properties: schema.properties && describeFamilies(schema.properties),
    additionalProperties,
  }
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined))
}

function describePattern({ source, flags }: RegExp): string {
  return flags.includes('i') ? `(?i:${source})` : source
}

function describeFormat(format: PropertyFormat): Described {
  return Object.fromEntries(
    Object.entries(format).map(([name, { schema, isDefaultKey, alias, keyAlias }]) => [
      name,
      {
        ...(alias === undefined ? describeSchema(schema) : { alias }),
        ...(isDefaultKey ? { default_key: true } : {}),
        ...(keyAlias === undefined ? {} : { keyAlias }),
      },
    ]),
  )
}

export interface TreeNode {
  readonly text: string
  readonly path: string
  readonly leaf: 0 | 1
  readonly info: Record<string, MethodDescription>
  readonly children?: TreeNode[]
}

/** The same as a tree by path segment, as PVE's API viewer reads it. */
export function describeTree<Call>(endpoints: readonly Endpoint<Call>[]): TreeNode[] {
  const roots: MutableNode[] = []
  for (const entry of describe(endpoints)) {
    let [level, path] = [roots, '']
    let node: MutableNode | undefined
    for (const text of entry.path.split('/').filter(Boolean)) {
      path += `/${text}`
      node = level.find((child) => child.text === text)
      if (!node) level.push((node = { text, path, info: {}, children: [] }))
      level = node.children
    }
    if (node) node.info[entry.method] = entry
  }
  return roots.map(finished)
}

interface MutableNode {
  readonly text: string
  readonly path: string
  readonly info: Record<string, MethodDescription>
  readonly children: MutableNode[]
}

function finished({ children, ...node }: MutableNode): TreeNode {
  if (children.length === 0) return { ...node, leaf: 1 }
  return { ...node, leaf: 0, children: children.map(finished) }
}
