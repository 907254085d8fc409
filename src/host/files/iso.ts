/** Small ISO 9660 images, by xorriso: with Rock Ridge for Unix and Joliet for Windows, so both see the names as given. */
import { mkdir, mkdtemp, readdir, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Host } from '../host.ts'

export interface IsoWish {
  /** Path of the image; replaced in one act when it exists. */
  readonly path: string
  /** Volume label. */
  readonly label: string
  /** Content by path inside the image: `openstack/latest/user_data`. */
  readonly files: Readonly<Record<string, string | Uint8Array>>
}

const limitMs = 30_000
/** Of every file in every image, in seconds since 1970: equal content makes equal images. */
const made = Date.UTC(2000, 0, 1) / 1000

/** Everything on the way there is readable by root alone, and gone afterwards. */
export async function writeIso(host: Host, { path, label, files }: IsoWish): Promise<void> {
  const place = await mkdtemp(join(dirname(path), '.iso-'))
  try {
    const tree = join(place, 'tree')
    await mkdir(tree, { mode: 0o700 })
    for (const [name, content] of Object.entries(files)) {
      await mkdir(dirname(join(tree, name)), { recursive: true, mode: 0o700 })
      await writeFile(join(tree, name), content, { mode: 0o444, flag: 'wx' })
    }
    for (const name of ['', ...(await readdir(tree, { recursive: true }))]) await utimes(join(tree, name), made, made)
    const image = join(place, 'image.iso')
    const argv = ['xorrisofs', '-quiet', '-rational-rock', '-joliet', '-V', label, '-o', image, tree] as const
    await host.run(argv, { timeoutMs: limitMs, env: { SOURCE_DATE_EPOCH: String(made) } })
    await rename(image, path)
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}
