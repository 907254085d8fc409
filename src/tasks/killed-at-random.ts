/**
 * Kills the worker of an operation at random moments, many times, and sees whether anything is left.
 *
 * A moment is "when the journal has n lines, and up to a few milliseconds later", so that kills spread over
 * the whole run instead of falling into the start of the process, which takes longer than a fast operation.
 * Sometimes the process that recovers is killed too, and sometimes the daemon is gone as well.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock, waitFor } from '#base/clock.ts'
import type { UpidText } from '#base/ids.ts'
import { isAlive, signalProcess } from '#host/programs/proc.ts'
import type { Json, Store } from '#store/store.ts'
import { TaskArchive } from './archive.ts'
import { heldLocks } from './lock.ts'
import type { TaskService } from './service.ts'
import { parseUpid } from './upid.ts'

/** A world of its own for one task, with real workers. */
export interface KillWorld extends AsyncDisposable {
  readonly stateDir: string
  readonly store: Store
  readonly params: Json
  /** A daemon's view of the tasks there; each call is another daemon. */
  readonly service: () => TaskService
  /** All that the operation could leave behind; equal in every world in the same state. */
  readonly look: () => Promise<unknown>
}

export interface KillPlan {
  /** Name of the operation; the workers of the world's services must know it. */
  readonly operation: string
  readonly makeWorld: () => Promise<KillWorld>
  readonly rounds: number
  readonly seed: number
  /** Rounds under way at the same time. Default: 2. */
  readonly atOnce?: number
  /** Told the seed and how it went. */
  readonly say: (line: string) => void
}

export interface KillReport {
  readonly undone: number
  readonly succeeded: number
  /** Rounds whose worker was killed after a step began and before the task had its end. */
  readonly inTheMiddle: number
  readonly recoveriesKilled: number
  readonly daemonsKilled: number
}

type Dice = (below: number) => number
const soon = { timeoutMs: 60_000, everyMs: 1 }
const recoveryStartMs = 150
const mostLaterMs = 3

/** Kills, recovers and compares; throws for the first world that is neither as before nor as after success. */
export async function killedAtRandom(plan: KillPlan): Promise<KillReport> {
  plan.say(`killing ${plan.operation} ${plan.rounds} times, seed ${plan.seed}`)
  const success = await undisturbed(plan)
  const report = { undone: 0, succeeded: 0, inTheMiddle: 0, recoveriesKilled: 0, daemonsKilled: 0 }
  const rounds = Array.from({ length: plan.rounds }, (_, index) => index)
  const lane = async () => {
    for (let index = rounds.shift(); index !== undefined; index = rounds.shift()) {
      // Each round has dice of its own, so that it can be thrown again alone.
      const dice = diceOf(plan.seed + index)
      const round = await oneRound(plan, success, dice, `round ${index} of seed ${plan.seed}`)
      for (const [name, count] of Object.entries(round)) report[name as keyof KillReport] += Number(count)
    }
  }
  await Promise.all(Array.from({ length: plan.atOnce ?? 2 }, lane))
  plan.say(JSON.stringify(report))
  return report
}

interface Success {
  readonly world: unknown
  readonly journalLines: number
}

async function undisturbed({ operation, makeWorld }: KillPlan): Promise<Success> {
  await using world = await makeWorld()
  await using tasks = world.service()
  const before = await world.look()
  const upid = await tasks.start({ operation, params: world.params, user: 'root@pam' })
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'OK')
  const after = await world.look()
  assert.notDeepEqual(after, before, '`look` sees nothing of what the operation does')
  return { world: after, journalLines: linesIn(new TaskArchive(world.stateDir).journalOf(upid)) }
}

async function oneRound(plan: KillPlan, success: Success, dice: Dice, name: string) {
  await using world = await plan.makeWorld()
  const before = await world.look()
  const archive = new TaskArchive(world.stateDir)
  let tasks = world.service()
  const upid = await tasks.start({ operation: plan.operation, params: world.params, user: 'root@pam' })
  await untilTheMoment(archive, upid, dice(success.journalLines) + 1, dice(mostLaterMs * 1000) / 1000)
  const fate = dice(10)
  const isDaemonKilled = fate >= 8
  if (isDaemonKilled) await tasks[Symbol.asyncDispose]()
  await kill(parseUpid(upid))
  const journal = readFileSync(archive.journalOf(upid), 'utf8')
  const inTheMiddle = journal.includes('"begin"') && (await archive.end(upid)) === undefined
  if (isDaemonKilled) {
    tasks = world.service()
    await tasks.recover()
  }
  const isRecoveryKilled = fate >= 6 && (await killRecovery(archive, upid, dice))
  const { exitstatus } = await tasks.wait(upid, soon)
  const isSuccess = exitstatus === 'OK'
  assert.ok(isSuccess || exitstatus === 'interrupted: undone', `${name}: ${exitstatus}`)
  assert.deepEqual(await world.look(), isSuccess ? success.world : before, `${name} (${exitstatus})\n${journal}`)
  assert.deepEqual(await heldLocks(world.store), [], name)
  await tasks[Symbol.asyncDispose]()
  return {
    undone: !isSuccess,
    succeeded: isSuccess,
    inTheMiddle,
    recoveriesKilled: isRecoveryKilled,
    daemonsKilled: isDaemonKilled,
  }
}

async function untilTheMoment(archive: TaskArchive, upid: UpidText, lines: number, laterMs: number): Promise<void> {
  const end = join(archive.directoryOf(upid), 'end.json')
  const isThere = () => linesIn(archive.journalOf(upid)) >= lines || existsSync(end)
  await waitFor(isThere, { what: `line ${lines} of the journal`, ...soon })
  const from = systemClock.monotonic()
  // Finer than a timer: a step of a fast operation takes less than a millisecond.
  while (systemClock.monotonic() - from < laterMs) await new Promise(setImmediate)
}

async function kill({ pid, pstart }: { readonly pid: number; readonly pstart: number }): Promise<void> {
  if (!(await signalProcess(pid, pstart, 'SIGKILL'))) return
  await waitFor(async () => !(await isAlive(pid, pstart)), { what: `death of ${pid}`, ...soon })
}

/** Kills the first process that recovers the task at a random moment of its life, unless the task ends first. */
async function killRecovery(archive: TaskArchive, upid: UpidText, dice: Dice): Promise<boolean> {
  const found = await waitFor(
    async () => (await archive.recoveryProcess(upid)) ?? ((await archive.end(upid)) && 'ended'),
    { what: 'a recovery', ...soon },
  )
  if (found === 'ended') return false
  await systemClock.sleep(dice(recoveryStartMs))
  const isStillThere = await isAlive(found.pid, found.pstart)
  await kill(found)
  return isStillThere
}

function linesIn(path: string): number {
  return readFileSync(path, 'utf8').split('\n').length - 1
}

/** Pseudo-random whole numbers from a seed (mulberry32). */
function diceOf(seed: number): Dice {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * below)
  }
}
