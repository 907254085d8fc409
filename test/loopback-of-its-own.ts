/**
 * A network for a program that must not notice what else happens on this machine: a namespace with nothing but loopback
 * in it, where a few ports of this machine's loopback are reached as usual.
 */
import { fork } from 'node:child_process'
import { connect, type Server } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream'
import { machine } from '#host/exec.ts'
import { createNetns, inNetns, removeNetns } from '#host/network/netns.ts'

export interface OwnLoopback extends AsyncDisposable {
  readonly netns: string
}

/** @param ports of 127.0.0.1 that are carried into it */
export async function loopbackOfItsOwn(ports: readonly number[]): Promise<OwnLoopback> {
  const netns = `hx-lo-${process.pid}`
  await using undo = new AsyncDisposableStack()
  undo.defer(() => removeNetns(machine(), netns))
  await createNetns(machine(), netns)
  for (const port of ports) {
    const server = await listenIn(netns, port)
    undo.defer(() => void server.close())
    // What breaks on one side breaks on the other, and the ends see it.
    server.on('connection', (inside) => pipeline(inside, connect(port, '127.0.0.1'), inside, () => {}))
  }
  const made = undo.move()
  return { netns, [Symbol.asyncDispose]: () => made.disposeAsync() }
}

/** A socket belongs to the namespace it was made in, whoever holds it: a program inside makes it and hands it out. */
async function listenIn(netns: string, port: number): Promise<Server> {
  const [execPath, ...execArgv] = inNetns(netns, [process.execPath])
  const child = fork(join(import.meta.dirname, 'fixtures/listen-and-hand-out.ts'), [String(port)], {
    execPath,
    execArgv,
  })
  const handed = Promise.withResolvers<Server>()
  child.once('error', handed.reject)
  child.once('exit', (code) => handed.reject(new Error(`nobody listens on ${port} in ${netns}: ${code}`)))
  child.once('message', (_, server) => handed.resolve(server as Server))
  try {
    return await handed.promise
  } finally {
    child.kill('SIGKILL')
  }
}
