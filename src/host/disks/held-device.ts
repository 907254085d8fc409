/**
 * A block device that is about to be written over, taken from the kernel for us alone: nobody can mount it meanwhile, nor
 * make it part of something, nor one of its partitions.
 */
import { constants } from 'node:fs'
import ffi from 'node:ffi'
import { type FileHandle, open, realpath } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { getSystemErrorName } from 'node:util'
import { GiB, isZero, MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { asFileFault, codeOf } from '../files.ts'
import type { Host } from '../host.ts'
import type { BlockDevice } from './block-devices.ts'
import { requireIdle } from './idle.ts'

/** FALLOC_FL_KEEP_SIZE with FALLOC_FL_PUNCH_HOLE, and with FALLOC_FL_ZERO_RANGE. */
const [forget, writeZeros] = [0x03, 0x11]
/** In one call, during which nothing else is done: to forget takes no time, to write may be done by a slow disk. */
const [forgottenBytes, writtenBytes] = [GiB, 16 * MiB]

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', {
    fallocate: { arguments: ['i32', 'i32', 'i64', 'i64'], return: 'i32' },
    __errno_location: { arguments: [], return: 'pointer' },
  }).functions
}

export class HeldDevice implements AsyncDisposable {
  /** By its plain name, with what is on it. */
  readonly facts: BlockDevice
  readonly #handle: FileHandle
  #forgets: boolean | undefined

  private constructor(facts: BlockDevice, handle: FileHandle) {
    this.facts = facts
    this.#handle = handle
  }

  /** @throws Fault `conflict` naming who uses it, `denied` when it cannot be written to */
  static async take(host: Host, device: string): Promise<HeldDevice> {
    const path = await realpath(device)
    // Asked first for the name of who has it; the kernel's answer is the one that counts.
    await requireIdle(host, path)
    await using undo = new AsyncDisposableStack()
    const handle = await open(path, constants.O_RDWR | constants.O_EXCL).catch((cause: unknown) => {
      throw faultOf(cause, path)
    })
    undo.defer(() => handle.close())
    const held = new HeldDevice(await requireIdle(host, path), handle)
    undo.move()
    return held
  }

  get path(): string {
    return this.facts.path
  }

  /**
   * Reads as zeros from then on, from one byte up to another; both are multiples of 4 KiB, or its end.
   * @param onZeroed told of bytes that are done
   * @returns whether the device gave them back, which takes no time; else zeros were written
   */
  async zero(
    from: number,
    to: number,
    { signal, onZeroed }: { readonly signal: AbortSignal | undefined; readonly onZeroed?: (bytes: number) => void },
  ): Promise<boolean> {
    for (let at = from; at < to;) {
      if (signal?.aborted) throw new Fault('aborted', `the work on device '${this.path}' was interrupted`)
      this.#forgets ??= await this.#isForgotten(at, Math.min(to - at, MiB))
      const bytes = Math.min(to - at, this.#forgets ? forgottenBytes : writtenBytes)
      if (this.#allocate(this.#forgets ? forget : writeZeros, at, bytes)) {
        at += bytes
        onZeroed?.(bytes)
      } else this.#forgets = false
      // Nothing waits for it in a thread of its own: others get their turn here.
      await setImmediate()
    }
    return this.#forgets ?? true
  }

  /** There are devices that take the word and do nothing: what was just written has to be gone. */
  async #isForgotten(at: number, bytes: number): Promise<boolean> {
    try {
      const [mark, found] = [Buffer.alloc(bytes, 0xff), Buffer.alloc(bytes, 0xff)]
      await this.#handle.write(mark, 0, bytes, at)
      await this.#handle.sync()
      if (!this.#allocate(forget, at, bytes)) return false
      await this.#handle.read(found, 0, bytes, at)
      return isZero(found)
    } catch (cause) {
      throw faultOf(cause, this.path)
    }
  }

  /** False where the device cannot forget. */
  #allocate(how: number, at: number, bytes: number): boolean {
    const { fallocate, __errno_location: errno } = libc()
    while (fallocate(this.#handle.fd, how, BigInt(at), BigInt(bytes)) !== 0) {
      const code = getSystemErrorName(-ffi.getInt32(errno()))
      if (code === 'EOPNOTSUPP' && how === forget) return false
      if (code !== 'EINTR') throw faultOf(Object.assign(new Error(`fallocate: ${code}`), { code }), this.path)
    }
    return true
  }

  /** What was made zero survives power loss. */
  async flush(): Promise<void> {
    await this.#handle.sync().catch((cause: unknown) => {
      throw faultOf(cause, this.path)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close()
  }
}

function faultOf(cause: unknown, path: string): unknown {
  const code = codeOf(cause)
  if (code === 'EBUSY')
    return new Fault('conflict', `device '${path}' is in use: the kernel has given it away`, { cause })
  if (code === 'EROFS') return new Fault('denied', `device '${path}' is read-only`, { cause })
  return asFileFault(cause, path)
}
