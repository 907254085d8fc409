/** What a realm's directory says about its users and groups, as its options ask for it. */
import { Fault } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { type Directory, type DirectoryAddress, type DirectoryEntry, withDirectory } from '#host/web/ldap.ts'
import { type RealmConfig, realmOptions } from '../realm-options.ts'

export interface FoundUser {
  /** Without the realm. */
  readonly name: string
  readonly firstname?: string
  readonly lastname?: string
  readonly email?: string
  readonly comment?: string
}

export interface FoundGroup {
  /** As the directory calls it. */
  readonly name: string
  /** Names of users of this realm. */
  readonly members: readonly string[]
}

export interface Found {
  readonly users: readonly FoundUser[]
  readonly groups: readonly FoundGroup[]
}

const told = ['firstname', 'lastname', 'email', 'comment'] as const
const versions = { tlsv1: 'TLSv1', tlsv1_1: 'TLSv1.1', tlsv1_2: 'TLSv1.2', tlsv1_3: 'TLSv1.3' } as const

/** @throws Fault `conflict` for a realm without a directory */
export function directoryOf({ type, options }: RealmConfig, password: string | undefined): DirectoryAddress {
  if (type !== 'ldap' && type !== 'ad') {
    throw new Fault('conflict', `a realm of the type ${type} has no directory to read`)
  }
  const text = (name: string) => (typeof options[name] === 'string' ? options[name] : undefined)
  const { mode, sslversion, port, secure, verify } = options
  const capath = text('capath')
  const modeOf = mode === 'ldaps' || mode === 'ldap+starttls' ? mode : undefined
  return {
    servers: [text('server1'), text('server2')].filter((server) => server !== undefined),
    port: typeof port === 'number' ? port : undefined,
    mode: modeOf ?? (mode === undefined && secure === true ? 'ldaps' : 'ldap'),
    tls: {
      isVerified: verify === true,
      trusted: capath === realmOptions.capath.default ? undefined : capath,
      minVersion: versions[String(sslversion) as keyof typeof versions],
      certificate: text('cert'),
      key: text('certkey'),
    },
    bind: options.bind_dn === undefined ? undefined : { dn: String(options.bind_dn), password: password ?? '' },
  }
}

/** Logs in to the directory and looks whether the base is there. @throws Fault */
export async function tryDirectory(config: RealmConfig, password: string | undefined): Promise<void> {
  await withDirectory(directoryOf(config, password), async (directory) => {
    const base = await baseOf(config, directory)
    // An object that is not there matches nothing, and a base that is not there is refused.
    await directory.search({ base, filter: '(&(objectClass=*)(!(objectClass=*)))', attributes: ['1.1'] })
  })
}

export async function readDirectory(
  config: RealmConfig,
  { password, withGroups, signal }: { password: string | undefined; withGroups: boolean; signal?: AbortSignal },
): Promise<Found> {
  return withDirectory(
    directoryOf(config, password),
    async (directory) => {
      const base = await baseOf(config, directory)
      const users = await readUsers(config, directory, base)
      const groups = withGroups ? await readGroups(config, directory, { base, users }) : []
      return { users: users.map(({ user }) => user), groups }
    },
    signal,
  )
}

async function baseOf({ options }: RealmConfig, directory: Directory): Promise<string> {
  const base = typeof options.base_dn === 'string' ? options.base_dn : await directory.defaultBase()
  if (base !== undefined) return base
  throw new Fault('conflict', 'the directory does not say where it begins', { remedy: 'Set base_dn of the realm.' })
}

interface ReadUser {
  readonly dn: string
  readonly user: FoundUser
}

async function readUsers({ type, options }: RealmConfig, directory: Directory, base: string): Promise<ReadUser[]> {
  const nameAttribute = String(options.user_attr ?? (type === 'ad' ? 'sAMAccountName' : 'uid'))
  const attributeOf = attributeMap(options.sync_attributes)
  const classes = splitList(String(options.user_classes ?? realmOptions.user_classes.default))
  const entries = await directory.search({
    base,
    filter: filterOf({ classes, further: options.filter, named: nameAttribute }),
    attributes: [nameAttribute, ...attributeOf.values()],
  })
  return entries.flatMap(({ dn, values }) => {
    const [name] = values(nameAttribute)
    if (name === undefined) return []
    const facts = told.flatMap((fact) => {
      const [value] = values(attributeOf.get(fact) ?? '')
      return value === undefined || value === '' ? [] : [[fact, value] as const]
    })
    return [{ dn, user: { name, ...Object.fromEntries(facts) } }]
  })
}

async function readGroups(
  { type, options }: RealmConfig,
  directory: Directory,
  { base, users }: { base: string; users: readonly ReadUser[] },
): Promise<FoundGroup[]> {
  const nameAttribute = String(options.group_name_attr ?? (type === 'ad' ? 'sAMAccountName' : 'cn'))
  const classes = splitList(String(options.group_classes ?? realmOptions.group_classes.default))
  const entries = await directory.search({
    base: typeof options.group_dn === 'string' ? options.group_dn : base,
    filter: filterOf({ classes, further: options.group_filter, named: nameAttribute }),
    attributes: [nameAttribute, 'member', 'uniqueMember', 'memberUid'],
  })
  const nameByDn = new Map(users.map(({ dn, user }) => [plainDn(dn), user.name]))
  const names = new Set(nameByDn.values())
  return entries.flatMap((entry) => {
    const [name] = entry.values(nameAttribute)
    return name === undefined ? [] : [{ name, members: membersIn(entry, nameByDn, names) }]
  })
}

function membersIn({ values }: DirectoryEntry, nameByDn: ReadonlyMap<string, string>, names: ReadonlySet<string>) {
  const byDn = [...values('member'), ...values('uniqueMember')].map((dn) => nameByDn.get(plainDn(dn)) ?? '')
  return [...new Set([...byDn, ...values('memberUid')])].filter((name) => names.has(name))
}

/** `email=mail,firstname=givenName` */
function attributeMap(text: unknown): Map<string, string> {
  const pairs = (typeof text === 'string' ? text : '').split(',').map((pair) => pair.trim().split('='))
  return new Map(pairs.flatMap(([fact = '', attribute = '']) => (attribute === '' ? [] : [[fact, attribute]])))
}

/** Any of the classes, with a name, and what the administrator adds: his filter is his own words, the rest are plain names. */
function filterOf({
  classes,
  further,
  named,
}: {
  classes: readonly string[]
  further: unknown
  named: string
}): string {
  const ofClass = classes.map((name) => `(objectClass=${name})`).join('')
  const own = typeof further === 'string' && further !== '' ? further : ''
  const whole = own === '' || own.startsWith('(') ? own : `(${own})`
  return `(&(|${ofClass})(${named}=*)${whole})`
}

/** Two spellings of one name: case and blanks around the commas do not count. */
function plainDn(dn: string): string {
  return dn.toLowerCase().replaceAll(/\s*(?<!\\)([,=+])\s*/g, '$1')
}
