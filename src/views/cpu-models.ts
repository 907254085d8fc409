/** Custom processor models, as far as somebody may see them. */
import type { May } from './volume-access.ts'

export const seeingCpuModels = ['Mapping.Audit', 'Mapping.Use', 'Mapping.Modify'] as const

export async function maySeeCpuModel(name: string, { may }: { readonly may: May }): Promise<boolean> {
  const held = await Promise.all(seeingCpuModels.map((privilege) => may(`/mapping/cpu/${name}`, privilege)))
  return held.some(Boolean)
}
