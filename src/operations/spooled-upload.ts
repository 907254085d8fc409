/** Where an upload was put, as a call says that is not the edge's alone. */
import { dirname, join, normalize } from 'node:path'
import { invalid } from '#base/fault.ts'
import type { Settings } from '#settings.ts'

/**
 * A path that leads anywhere else would publish any file of the host, so the rule of the edge (it names the
 * file itself, in a folder only root can write to) is held here a second time.
 * @throws Fault `invalid`
 */
export function spooledUpload({ stateDir }: Pick<Settings, 'stateDir'>, path: string | undefined): string {
  if (path === undefined) {
    throw invalid({ filename: 'no file was uploaded: send it as the last part of a multipart form' })
  }
  if (normalize(path) !== path || dirname(path) !== join(stateDir, 'upload', 'claimed')) {
    throw invalid({ tmpfilename: 'value is not a spooled upload' })
  }
  return path
}
