/**
 * The lab: from nothing to a proven restore, as a client of the API. It can do nothing a user could not.
 *
 * Every step finds out what is there and makes only what is not, so a second run continues where the first
 * one was ended, wherever that was.
 */
import { createHash } from 'node:crypto'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { password } from '#base/random.ts'
import { meanings } from '#recovery/level.ts'
import { minutesText } from '#recovery/record.ts'
import type { KeptDrill } from '#recovery/service.ts'
import { fieldsOf, requireGood } from './api.ts'
import { guestLimitMs, type Lab, type LabGuest, pathOf, step, untilPage } from './lab-guest.ts'
import type { LabTerminal } from './terminal.ts'
import { say } from './text.ts'

const labUser = 'lab@pve'

/**
 * @param source what the guest is made of, which may still be on its way
 * @returns whether what was backed up of the guest was proven. @throws Fault when something else went wrong
 */
export async function proveRestore(lab: Lab, guest: LabGuest, source?: string | Promise<string>): Promise<boolean> {
  await ensureGuest(lab, guest, source)
  await step(lab, guest.says.start, () => ensureRunning(lab, guest), guest.name)
  const address = await addressOf(lab, guest)
  const page = new RegExp(RegExp.escape(guest.page))
  await step(lab, 'page', () => untilPage(lab, address, '/', page), `http://${address}/`)
  const now = () => new Date(lab.clock.now()).toISOString()
  const content = `as of the restore point, ${now()}\n`
  await step(lab, guest.says.known, () => writeKnown(lab, guest, address, content))
  await step(lab, 'backup', () => backUp(lab, guest))
  const changed = `changed after the restore point, ${now()}\n`
  await step(lab, 'changed', () => writeKnown(lab, guest, address, changed))
  const drill = await step(lab, 'drill', () => runDrill(lab, guest, content))
  showDrill(lab.terminal, drill)
  return drill.proven
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

async function ensureGuest(lab: Lab, guest: LabGuest, source?: string | Promise<string>): Promise<void> {
  const { api, terminal } = lab
  const { name } = guest
  if (await isThere(lab, guest)) {
    terminal.show(`  ✓ ${say(terminal.language, 'created', name)}`)
    return
  }
  const isReady = typeof source === 'string'
  const made = isReady ? source : await step(lab, 'template', async () => source ?? guest.prepare(lab))
  const create = async () => requireGood(`creating ${name}`, await api.task(await guest.create(lab, made)))
  await step(lab, 'create', create, name)
}

export async function isThere({ api }: Lab, { vmid }: LabGuest): Promise<boolean> {
  const guests = await api.get('/cluster/resources', { type: 'vm' })
  return Array.isArray(guests) && guests.some((guest) => Number(fieldsOf(guest).vmid) === vmid)
}

async function ensureRunning(lab: Lab, guest: LabGuest): Promise<void> {
  const { api, terminal } = lab
  const { status } = fieldsOf(await api.get(pathOf(lab, guest, 'status/current')))
  if (status !== 'running') {
    requireGood(`starting ${guest.name}`, await api.task(await api.post(pathOf(lab, guest, 'status/start'))))
  }
  const limits = { timeoutMs: guestLimitMs, everyMs: 200, signal: terminal.signal }
  await waitFor(() => guest.answers(lab), { what: `somebody inside ${guest.name}`, ...limits })
}

function addressOf(lab: Lab, guest: LabGuest): Promise<string> {
  const limits = { timeoutMs: guestLimitMs, everyMs: 200, signal: lab.terminal.signal }
  return waitFor(() => guest.address(lab), { what: `an address for ${guest.name}`, ...limits })
}

async function writeKnown(lab: Lab, guest: LabGuest, address: string, content: string): Promise<void> {
  await guest.write(lab, content)
  await untilPage(lab, address, '/known', new RegExp(`^${RegExp.escape(content)}$`))
}

async function backUp({ api, settings, terminal }: Lab, { vmid, name }: LabGuest): Promise<void> {
  const upid = await api.post(`/nodes/${settings.node}/vzdump`, { vmid, storage: 'local', mode: 'snapshot' })
  requireGood(`backing up ${name}`, await api.task(upid, (line) => terminal.show(`  … ${line}`, true)))
}

/** @returns its record, good or bad. @throws Fault when the drill itself could not be carried out */
async function runDrill({ api, terminal }: Lab, guest: LabGuest, content: string): Promise<KeptDrill> {
  const sha256 = createHash('sha256').update(content).digest('hex')
  const upid = await api.post('/hako/drills', {
    vmid: guest.vmid,
    level: 'L6',
    probe0: `http,path=/,contains=${encodeURIComponent(guest.page)}`,
    probe1: `http,path=/known,sha256=${sha256}`,
    probe2: `file,path=${guest.knownFile},sha256=${sha256}`,
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
