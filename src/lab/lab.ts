/**
 * The lab: from nothing to a proven restore, as a client of the API. It can do nothing a user could not.
 *
 * Every step finds out what is there and makes only what is not, so a second run continues where the first
 * one was ended, wherever that was.
 */
import { createHash } from 'node:crypto'
import { type Clock, waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { password, type Random } from '#base/random.ts'
import type { Host } from '#host/host.ts'
import { httpGet } from '#host/http-probe.ts'
import { meanings } from '#recovery/level.ts'
import { minutesText } from '#recovery/record.ts'
import type { KeptDrill } from '#recovery/service.ts'
import { ownBridge, type Settings } from '#settings.ts'
import { fieldsOf, type LabApi, requireGood } from './api.ts'
import { ensureGuestImage } from './guest-image.ts'
import type { LabTerminal } from './terminal.ts'
import { say, type SentenceKey } from './text.ts'

export interface Lab {
  readonly settings: Settings
  readonly api: LabApi
  readonly host: Host
  readonly clock: Clock
  readonly random: Random
  readonly terminal: LabTerminal
}

export const labVmid = 100
const labUser = 'lab@pve'
const knownFile = '/www/known'
const guestLimitMs = 120_000

/** Steps 3 to 7. @returns whether the backup was proven */
export async function proveRestore(lab: Lab): Promise<boolean> {
  await step(lab, 'image', () => ensureImage(lab))
  await ensureGuest(lab)
  await step(lab, 'start', () => ensureRunning(lab), String(labVmid))
  const address = await guestAddress(lab)
  await step(lab, 'page', () => untilPage(lab, address, '/', /Hakobune lab guest/), `http://${address}/`)
  const now = () => new Date(lab.clock.now()).toISOString()
  const content = `as of the restore point, ${now()}\n`
  await step(lab, 'known', () => writeKnown(lab, address, content))
  await step(lab, 'backup', () => backUp(lab))
  await step(lab, 'changed', () => writeKnown(lab, address, `changed after the restore point, ${now()}\n`))
  const drill = await step(lab, 'drill', () => runDrill(lab, content))
  showDrill(lab.terminal, drill)
  return drill.proven
}

/** Shows what is being done, and afterwards that it was and how long it took. */
async function step<T>(
  { terminal, clock }: Lab,
  key: SentenceKey,
  work: () => Promise<T>,
  ...values: readonly string[]
): Promise<T> {
  const text = say(terminal.language, key, ...values)
  const started = clock.monotonic()
  terminal.show(`  … ${text}`, true)
  const result = await work()
  terminal.show(`  ✓ ${text} (${((clock.monotonic() - started) / 1000).toFixed(1)} s)`)
  return result
}

/** A user of its own with a password of this run alone: there is no default password anywhere. */
export async function freshLogin({
  api,
  random,
}: Pick<Lab, 'api' | 'random'>): Promise<{ user: string; secret: string }> {
  const secret = password(random)
  const users = await api.get('/access/users')
  const isThere = Array.isArray(users) && users.some((user) => fieldsOf(user).userid === labUser)
  if (isThere) await api.put('/access/password', { userid: labUser, password: secret })
  else await api.post('/access/users', { userid: labUser, password: secret, comment: 'Made by hako lab.' })
  await api.put('/access/acl', { path: '/', users: labUser, roles: 'Administrator', propagate: 1 })
  return { user: labUser, secret }
}

function ensureImage({ settings, host, terminal }: Lab) {
  const { cacheDir } = settings
  return ensureGuestImage({
    host,
    cacheDir,
    signal: terminal.signal,
    say: (line) => terminal.show(`  … ${line}`, true),
  })
}

async function ensureGuest(lab: Lab): Promise<void> {
  const { api, settings, terminal } = lab
  const guests = await api.get('/cluster/resources', { type: 'vm' })
  if (Array.isArray(guests) && guests.some((guest) => Number(fieldsOf(guest).vmid) === labVmid)) {
    terminal.show(`  ✓ ${say(terminal.language, 'created', String(labVmid))}`)
    return
  }
  const image = await ensureImage(lab)
  await step(
    lab,
    'create',
    async () => {
      const upid = await api.post(`/nodes/${settings.node}/qemu`, {
        vmid: labVmid,
        name: 'lab',
        memory: 192,
        cores: 1,
        agent: '1',
        serial0: 'socket',
        scsihw: 'virtio-scsi-pci',
        scsi0: `local:0,import-from=${image.path}`,
        net0: `virtio,bridge=${ownBridge(settings)}`,
        boot: 'order=scsi0',
        description: 'Made by hako lab.',
      })
      requireGood(`creating VM ${labVmid}`, await api.task(upid))
    },
    String(labVmid),
  )
}

const guestPath = ({ settings }: Lab, rest: string) => `/nodes/${settings.node}/qemu/${labVmid}/${rest}`

async function ensureRunning(lab: Lab): Promise<void> {
  const { api, terminal } = lab
  const { status } = fieldsOf(await api.get(guestPath(lab, 'status/current')))
  if (status !== 'running') {
    requireGood(`starting VM ${labVmid}`, await api.task(await api.post(guestPath(lab, 'status/start'))))
  }
  await waitFor(() => agentAnswers(lab), {
    what: `the guest agent of VM ${labVmid}`,
    timeoutMs: guestLimitMs,
    everyMs: 200,
    signal: terminal.signal,
  })
}

async function agentAnswers(lab: Lab): Promise<boolean> {
  try {
    await lab.api.post(guestPath(lab, 'agent/ping'))
    return true
  } catch (error) {
    // While it boots nobody answers; anything else is a failure to be seen.
    if (isFault(error, 'unavailable') || isFault(error, 'timeout') || isFault(error, 'failed')) return false
    throw error
  }
}

/** The guest's own word for its address, given by the lab network's DHCP. */
async function guestAddress(lab: Lab): Promise<string> {
  return waitFor(
    async () => {
      const { result } = fieldsOf(await lab.api.get(guestPath(lab, 'agent/network-get-interfaces')))
      return addressIn(result)
    },
    { what: `an address for VM ${labVmid}`, timeoutMs: guestLimitMs, everyMs: 200, signal: lab.terminal.signal },
  )
}

/** The first IPv4 address that is neither loopback nor self-assigned, in the agent's reply. */
export function addressIn(interfaces: unknown): string | undefined {
  const list = Array.isArray(interfaces) ? interfaces.map(fieldsOf) : []
  return list
    .flatMap((card) => (Array.isArray(card['ip-addresses']) ? card['ip-addresses'].map(fieldsOf) : []))
    .filter((address) => address['ip-address-type'] === 'ipv4')
    .map((address) => String(address['ip-address']))
    .find((address) => !address.startsWith('127.') && !address.startsWith('169.254.'))
}

/** Asked by this machine, which is part of the lab network. */
async function untilPage({ host, terminal }: Lab, address: string, path: string, expected: RegExp): Promise<void> {
  const url = `http://${address}${path}`
  await waitFor(
    async () => {
      try {
        const { status, body } = await httpGet({ host, url, timeoutMs: 3_000, signal: terminal.signal })
        return status === 200 && expected.test(body)
      } catch (error) {
        if (isFault(error, 'unavailable') || isFault(error, 'timeout')) return false
        throw error
      }
    },
    { what: `the web page ${url} with ${expected}`, timeoutMs: guestLimitMs, everyMs: 200, signal: terminal.signal },
  )
}

async function writeKnown(lab: Lab, address: string, content: string): Promise<void> {
  await lab.api.post(guestPath(lab, 'agent/file-write'), { file: knownFile, content })
  await untilPage(lab, address, '/known', new RegExp(`^${RegExp.escape(content)}$`))
}

async function backUp({ api, settings, terminal }: Lab): Promise<void> {
  const upid = await api.post(`/nodes/${settings.node}/vzdump`, { vmid: labVmid, storage: 'local', mode: 'snapshot' })
  requireGood(`backing up VM ${labVmid}`, await api.task(upid, (line) => terminal.show(`  … ${line}`, true)))
}

/** @returns its record, good or bad. @throws Fault when the drill itself could not be carried out */
async function runDrill({ api, terminal }: Lab, content: string): Promise<KeptDrill> {
  const sha256 = createHash('sha256').update(content).digest('hex')
  const upid = await api.post('/hako/drills', {
    vmid: labVmid,
    level: 'L6',
    probe0: `http,path=/,contains=${encodeURIComponent('Hakobune lab guest')}`,
    probe1: `http,path=/known,sha256=${sha256}`,
    probe2: `file,path=${knownFile},sha256=${sha256}`,
  })
  const end = await api.task(upid, (line) => terminal.show(`  … ${line}`, true))
  const drills = (await api.get('/hako/drills')) as readonly KeptDrill[]
  const mine = drills.find((drill) => drill.upid === upid)
  if (!mine) throw new Fault('failed', `the drill left no record: ${end.exitstatus}`)
  return mine
}

/** Levels, phases, evidence, and last the line a person can quote. */
export function showDrill({ language, out }: LabTerminal, drill: KeptDrill): void {
  for (const { level, held, found, tookMs } of drill.verdicts) {
    const meaning = meanings[level][language]
    out(`      ${held ? '✓' : '✗'} ${level} ${meaning}: ${found} (${(tookMs / 1000).toFixed(1)} s)`)
  }
  const phases = Object.entries(drill.phases).map(([name, ms]) => `${name} ${minutesText(Number(ms))}`)
  out(`\n${say(language, 'phases')}: ${phases.join(', ')}`)
  out(`${say(language, 'evidence')}: ${drill.evidence}`)
  out(`${say(language, 'verify')}: ./hako evidence verify ${drill.evidence}`)
  out(`\n${drill.quote}`)
}
