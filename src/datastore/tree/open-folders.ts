/**
 * The folders of a tree being restored, opened one from the other and never through a link. Those on the way to the
 * last one asked for stay open, because the next is mostly beside or below it.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { asFileFault } from '#host/files.ts'
import { openFolder } from '#host/files/folder-calls.ts'

export class OpenFolders implements Disposable {
  readonly #open: { readonly name: string; readonly fd: number }[]
  #path: string | undefined = ''

  constructor(root: string) {
    try {
      this.#open = [{ name: '', fd: openSync(root, constants.O_RDONLY | constants.O_DIRECTORY) }]
    } catch (cause) {
      throw asFileFault(cause, root)
    }
  }

  /** Good until the next one is asked for. Nothing when there is no such folder. @param path '' is the root */
  open(path: string): number | undefined {
    if (path === this.#path) return this.#open.at(-1)?.fd
    this.#path = undefined
    const names = path === '' ? [] : path.split('/')
    let common = 0
    while (common < names.length && this.#open[common + 1]?.name === names[common]) common += 1
    for (const { fd } of this.#open.splice(common + 1)) closeSync(fd)
    for (const name of names.slice(common)) {
      const fd = openFolder(this.#open.at(-1)?.fd ?? -1, name)
      if (fd === undefined) return undefined
      this.#open.push({ name, fd })
    }
    this.#path = path
    return this.#open.at(-1)?.fd
  }

  /** A folder elsewhere, without giving up the place where we are. The caller closes it. */
  openApart(path: string): ({ readonly fd: number } & Disposable) | undefined {
    let fd = this.#open[0]?.fd ?? -1
    for (const [depth, name] of (path === '' ? [] : path.split('/')).entries()) {
      const next = openFolder(fd, name)
      if (depth > 0) closeSync(fd)
      if (next === undefined) return undefined
      fd = next
    }
    const isOurs = path !== ''
    return { fd, [Symbol.dispose]: () => isOurs && closeSync(fd) }
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#open) closeSync(fd)
  }
}
