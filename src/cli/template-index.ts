/**
 * The index of a folder of templates, for a site that offers them: what nodes read as `aplinfo`. It is text to be signed
 * by whoever vouches for the templates, and lies beside them on any web server.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asFileFault, readIfPresent } from '#host/files.ts'

/** `debian-13-standard_13.1-2_amd64.tar.zst` */
const named = /^([a-z][a-z0-9]*-[a-z0-9.]+)((?:-[a-z0-9.]+)*)_([A-Za-z0-9.~+-]+)_([a-z0-9]+)\.tar\.(?:gz|xz|zst|bz2)$/

/** @throws Fault `missing`; `invalid` when there is no template in it */
export async function templateIndex(folder: string): Promise<string> {
  const names = await readdir(folder).catch((cause: unknown) => {
    throw asFileFault(cause, folder)
  })
  const stanzas: string[] = []
  for (const name of names.filter((one) => named.test(one)).toSorted()) stanzas.push(await stanzaOf(folder, name))
  if (stanzas.length > 0) return stanzas.join('\n')
  throw new Fault('invalid', `there is no template in '${folder}'`, {
    remedy: 'They are called as debian-13-standard_13.1-2_amd64.tar.zst is: system, release, kind, version, processor.',
  })
}

async function stanzaOf(folder: string, name: string): Promise<string> {
  const [, os = '', kind = '', version, architecture] = named.exec(name) ?? []
  const described = (await readIfPresent(join(folder, `${name}.txt`)))?.trim() || `${os}${kind}`
  const hash = createHash('sha512')
  for await (const piece of createReadStream(join(folder, name)) as AsyncIterable<Buffer>) hash.update(piece)
  return `${[
    `Package: ${os}${kind}`,
    `Version: ${version}`,
    'Type: lxc',
    `OS: ${os}`,
    'Section: system',
    `Architecture: ${architecture}`,
    `Location: ${name}`,
    `sha512sum: ${hash.digest('hex')}`,
    `Description: ${continued(described)}`,
  ].join('\n')}\n`
}

/** Further lines begin with a blank, and an empty one is a point. */
function continued(text: string): string {
  const [first = '', ...more] = text.split('\n').map((line) => line.trim())
  return [first, ...more.map((line) => ` ${line === '' ? '.' : line}`)].join('\n')
}
