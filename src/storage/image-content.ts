/** Content of images for tests of storages, written and read by a tool that is not ours. */
import { readFile } from 'node:fs/promises'
import type { TestContext } from 'node:test'
import { machine } from '#host/exec.ts'
import type { ImageFormat } from './volume.ts'

const host = machine()

/** The image's content as a guest reads it, by a tool that is not ours. */
export async function contentOf(t: TestContext, path: string, format: ImageFormat): Promise<Buffer> {
  const flat = await temporaryFile(t)
  await host.run(['qemu-img', 'convert', '-f', format, '-O', 'raw', path, flat])
  return readFile(flat)
}

export async function nonZeroBytes(t: TestContext, path: string, format: ImageFormat): Promise<number> {
  return (await contentOf(t, path, format)).filter((byte) => byte !== 0).length
}

export async function firstLetter(t: TestContext, path: string, format: ImageFormat): Promise<string> {
  return (await contentOf(t, path, format)).toString('latin1', 0, 1)
}

export async function writeInto(path: string, format: ImageFormat, letter: string): Promise<void> {
  await host.run(['qemu-io', '-f', format, '-c', `write -P ${letter.charCodeAt(0)} 0 64k`, path])
}

export async function temporaryFile(t: TestContext): Promise<string> {
  const { stdout } = await host.run(['mktemp', '--tmpdir', 'hako-conformance-XXXXXX'])
  t.after(() => host.run(['rm', '-f', stdout.trim()]))
  return stdout.trim()
}
