/**
 * What disks of a guest still lack is served beside its QEMU, from the backup they are restored from.
 *
 * The server outlives whoever started it, and may be killed at any moment: QEMU waits, and connects to the one that is
 * started in its place.
 */
import { join } from 'node:path'
import type { Vmid } from '#base/ids.ts'
import { type DiskServerProgram, endDiskServer, serveDisks, unreadableIn } from '#host/nbd/disk-server.ts'
import type { Filling } from '../config.ts'

interface Needs {
  readonly settings: { readonly runDir: string; readonly uidBase: number }
  readonly diskServer?: DiskServerProgram
}

interface How {
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

export class DiskServers {
  readonly #needs: Needs

  constructor(needs: Needs) {
    this.#needs = needs
  }

  #directoryOf(vmid: Vmid): string {
    return join(this.#needs.settings.runDir, 'below', String(vmid))
  }

  /**
   * Sockets of what is below drives, by their names; starts the server where there is none.
   * @throws Fault `failed` with the server's last words
   */
  async serve(vmid: Vmid, { from, drives }: Filling, how: How = {}): Promise<Readonly<Record<string, string>>> {
    const { settings, diskServer } = this.#needs
    if (!diskServer) throw new Error('there is no program that serves disks')
    const place = { directory: this.#directoryOf(vmid), uid: settings.uidBase + vmid }
    return serveDisks({ program: diskServer, from, disks: drives, ...place }, how)
  }

  /** Ends the server, of disks that are whole or of a guest that has ended. Harmless when there is none. */
  async end(vmid: Vmid, isUnused?: () => Promise<boolean>): Promise<void> {
    await endDiskServer(this.#directoryOf(vmid), isUnused)
  }

  /** What it could not read so far, a sentence each. */
  async unreadable(vmid: Vmid): Promise<readonly string[]> {
    return unreadableIn(this.#directoryOf(vmid))
  }
}
