/** Whether a node is a lab: what is meant for one runs nowhere else. */
import { stat } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { labMark, type Settings } from '#settings.ts'

/** @param otherwise what to do on a node that is none @throws Fault `denied` */
export async function demandLab(settings: Settings, otherwise: { readonly remedy: string }): Promise<void> {
  const isLab = await stat(labMark(settings)).then(
    () => true,
    () => false,
  )
  if (!isLab) throw new Fault('denied', 'this node is no lab', otherwise)
}
