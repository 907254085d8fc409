/**
 * The proof ladder. A level is reached only when it and every level below it held.
 *
 * What a level means is fixed; how it is looked at (which console text, which probe) is the drill's.
 */
export const levels = ['L0', 'L1', 'L2', 'L3', 'L4', 'L5', 'L6'] as const
export type Level = (typeof levels)[number]

/** In a few words each; the handbook and the CLI show these. */
export const meanings: Readonly<Record<Level, { readonly en: string; readonly ja: string }>> = {
  L0: { en: 'catalogue readable', ja: 'カタログを読める' },
  L1: { en: 'every chunk verified', ja: '全チャンクを検証' },
  L2: { en: 'restored', ja: '復元できた' },
  L3: { en: 'boots', ja: '起動する' },
  L4: { en: 'answers from inside', ja: '内部から応答する' },
  L5: { en: 'network answers', ja: 'ネットワークが応答' },
  L6: { en: 'application answers as at the restore point', ja: 'アプリケーションが復元時点の内容で応答' },
}

/** True when `reached` is `wanted` or above it; nothing reached is below everything. */
export function suffices(reached: Level | undefined, wanted: Level): boolean {
  return reached !== undefined && levels.indexOf(reached) >= levels.indexOf(wanted)
}
