/**
 * A lab for tests of plans: plans of a project are run on it by CLI and by API, and killed where they are.
 *
 * To kill a run at a certain step, its calls go by way of the test: the one by which a step does what it is for is let
 * through, and the process ends by SIGKILL before it hears of the reply. So it dies at every step, exactly once, where
 * nobody knows whether the step was done.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { copyFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { machine } from '#host/exec.ts'
import { taskHeader } from '#http/wire.ts'
import { documentOf } from '#plans/document.ts'
import { planOf } from '#plans/plan.ts'
import type { RunState } from '#plans/run-state.ts'
import type { PlanStanding } from '#plans/status.ts'
import { parseUpid } from '#tasks/upid.ts'
import { compiled } from '../compiled.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const root = join(import.meta.dirname, '../..')

export interface Said {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** What an attempt is given beside its plan. */
export type More = Readonly<Record<string, string | string[]>>

export class PlanWorld {
  readonly node: TestNode

  constructor(node: TestNode) {
    this.node = node
  }

  static async make(): Promise<PlanWorld> {
    const node = await nodeUnderTest()
    await writeFile(join(node.settings.stateDir, 'lab'), 'A lab, as far as this test goes.\n')
    return new PlanWorld(node)
  }

  get folder(): string {
    return join(this.node.settings.stateDir, 'project/plans')
  }

  /** A copy of a shipped plan, in a project of its own. */
  async copied(name: string): Promise<string> {
    await mkdir(this.folder, { recursive: true })
    await copyFile(join(root, 'plans', name), join(this.folder, name))
    return join(this.folder, name)
  }

  async written(name: string, text: string): Promise<string> {
    await mkdir(this.folder, { recursive: true })
    await writeFile(join(this.folder, name), text)
    return join(this.folder, name)
  }

  async hako(...words: readonly string[]): Promise<Said> {
    return this.hakoGiven('', ...words)
  }

  /** With this on its standard input. */
  async hakoGiven(input: string, ...words: readonly string[]): Promise<Said> {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', join(root, 'src/cli/main.ts'), ...words]
    const { PATH = '' } = process.env
    const env = { ...compiled, PATH, HAKO_RUN_DIR: this.node.settings.runDir }
    const okCodes = Array.from({ length: 16 }, (_, code) => code)
    const { code, stdout, stderr } = await machine().run(argv as [string, ...string[]], {
      input,
      env,
      okCodes,
      timeoutMs: 300_000,
    })
    return { code, out: stdout, err: stderr }
  }

  async standingOf(file: string): Promise<PlanStanding> {
    return JSON.parse((await this.hako('plan', 'show', file, '-o', 'json')).out) as PlanStanding
  }

  async newest(plan: string): Promise<RunState | undefined> {
    const [run] = (await this.node.api('GET', '/hako/plans', { plan })) as { run: string }[]
    return run && ((await this.node.api('GET', `/hako/plans/${run.run}`)) as RunState)
  }

  /** Guests and volumes that are there. */
  async things(): Promise<unknown> {
    const { api, settings } = this.node
    const guests = (await api('GET', '/cluster/resources', { type: 'vm' })) as { vmid: number }[]
    const content = (await api('GET', `/nodes/${settings.node}/storage/local/content`)) as { volid: string }[]
    return [guests.map(({ vmid }) => vmid).toSorted((a, b) => a - b), content.map(({ volid }) => volid).toSorted()]
  }

  /** Every pack with its inode and the moment it was written: one that is written anew is another. */
  async packs(): Promise<string[]> {
    const { stateDir } = this.node.settings
    const format = String.raw`%p %i %T@\n`
    const { stdout } = await machine().run(['find', stateDir, '-path', '*/packs/*', '-type', 'f', '-printf', format])
    const all = stdout.trimEnd().split('\n').toSorted()
    assert.ok(all.length > 1, stdout)
    return all
  }

  /**
   * Runs a shipped plan to its end, and kills it once at each of its steps.
   * @param toItsEnd goes on after the last kill in another way
   * @returns the run, which is proven
   */
  async killedAtEachStep(name: string, more: More = {}, toItsEnd?: () => Promise<void>): Promise<RunState> {
    const document = await readFile(join(root, 'plans', name), 'utf8')
    const plan = `plans/${name}`
    const ids = planOf(documentOf(document)).steps.map(({ id }) => id)
    for (const [at, id] of ids.entries()) {
      await this.killedAt(id, { plan, document, mode: at === 0 ? 'run' : 'resume', ...more })
    }
    if (toItsEnd) await toItsEnd()
    else await this.node.task(await this.node.api('POST', '/hako/plans', { plan, document, mode: 'resume', ...more }))
    const run = await this.newest(plan)
    assert.equal(run?.outcome, 'proven', JSON.stringify(run?.steps))
    assert.equal(run.attempts.length, ids.length + 1)
    return run
  }

  /** One attempt, which dies at a step. */
  async killedAt(id: string, attempt: More & { readonly plan: string; readonly document: string }): Promise<void> {
    const step = planOf(documentOf(attempt.document)).steps.find((one) => one.id === id)
    assert.ok(step, `a step '${id}'`)
    let isKilled = false
    /** Whether the call is what the step is for. */
    const isDue = async (upid: string, { method, url = '' }: IncomingMessage): Promise<boolean> => {
      if (isKilled || url.includes('/tasks/') || (step.class !== 'read' && method === 'GET')) return false
      const run = await this.newest(attempt.plan)
      isKilled ||= run?.attempts.at(-1)?.upid === upid && run.steps[id]?.result === 'begun'
      return isKilled
    }
    await using _ = await this.#killing(isDue)
    const { exitstatus } = await this.node.task(await this.node.api('POST', '/hako/plans', attempt), /.*/)
    assert.ok(isKilled, `not killed at ${id}: ${exitstatus} ${JSON.stringify(await this.newest(attempt.plan))}`)
    assert.match(exitstatus, /^interrupted: what is done stays done/)
  }

  /** Puts itself before the socket of the node, and kills the task whose call it is to be. */
  async #killing(isDue: (upid: string, call: IncomingMessage) => Promise<boolean>): Promise<AsyncDisposable> {
    const socket = join(this.node.settings.runDir, 'api.sock')
    const behind = `${socket}.behind`
    const passOn = async (incoming: IncomingMessage, reply: ServerResponse) => {
      const { method = 'GET', url: path = '/', headers } = incoming
      const upid = headers[taskHeader]
      const isLast = typeof upid === 'string' && (await isDue(upid, incoming))
      const outgoing = request({ socketPath: behind, method, path, headers, agent: false })
      pipeline(incoming, outgoing).catch(() => {}) // Said by the reply that does not come.
      const [answer] = (await once(outgoing, 'response')) as [IncomingMessage]
      if (isLast) {
        process.kill(parseUpid(upid).pid, 'SIGKILL')
        answer.resume().on('end', () => reply.destroy())
      } else {
        reply.writeHead(answer.statusCode ?? 500, answer.statusMessage, answer.headers)
        await pipeline(answer, reply)
      }
    }
    const giveUp = (reply: ServerResponse, error: unknown) => {
      if (reply.headersSent) return void reply.destroy()
      reply
        .writeHead(502, 'Bad Gateway', { 'Content-Type': 'text/plain' })
        .end(`between test and node: ${String(error)}`)
    }
    const server = createServer(
      (incoming, reply) => void passOn(incoming, reply).catch((error: unknown) => giveUp(reply, error)),
    )
    // Under another name first, because what a server listens at it removes when it is closed.
    await new Promise<void>((resolve) => server.listen(`${socket}.test`, resolve))
    await rename(socket, behind)
    await rename(`${socket}.test`, socket)
    return {
      async [Symbol.asyncDispose]() {
        await rename(behind, socket)
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node[Symbol.asyncDispose]()
  }
}
