/** The twelve sections of a plan, and the headings they are known by. */
export const sectionKeys = [
  'metadata',
  'purpose',
  'context',
  'constraints',
  'work',
  'steps',
  'validation',
  'progress',
  'surprises',
  'decisions',
  'outcomes',
  'recovery',
] as const
export type SectionKey = (typeof sectionKeys)[number]

interface Names {
  readonly en: string
  readonly ja: string
  /** Others that mean the same, in either language, without punctuation and space. */
  readonly also: readonly string[]
}

export const sectionNames: Readonly<Record<SectionKey, Names>> = {
  metadata: { en: 'Metadata', ja: 'メタデータ', also: ['メタ情報', '管理情報', '書誌情報'] },
  purpose: { en: 'Purpose and big picture', ja: '目的と全体像', also: ['purpose', 'bigpicture', '目的', '全体像'] },
  context: {
    en: 'Context and orientation',
    ja: '背景と前提知識',
    also: ['context', 'orientation', '背景', '背景と位置づけ', 'コンテキスト', '文脈と案内', '前提知識'],
  },
  constraints: {
    en: 'Constraints and assumptions',
    ja: '制約と前提',
    also: ['constraints', 'assumptions', '制約', '前提', '制約条件', '制約と仮定', '制約条件と前提条件', '前提条件'],
  },
  work: { en: 'Plan of work', ja: '作業計画', also: ['workplan', '作業の計画', '進め方', '作業の進め方'] },
  steps: { en: 'Concrete steps', ja: '具体的な手順', also: ['steps', '手順', '作業手順', '具体的な作業手順'] },
  validation: {
    en: 'Validation and acceptance',
    ja: '検証と受け入れ',
    also: ['validation', 'acceptance', '検証', '受け入れ', '検証と受入', '検証と受け入れ基準', '検証と受入基準'],
  },
  progress: { en: 'Progress', ja: '進捗', also: ['進捗状況', '経過'] },
  surprises: {
    en: 'Surprises & discoveries',
    ja: '想定外と発見',
    also: ['surprises', 'discoveries', '驚きと発見', '想定外の事象と発見', '気づき', '発見'],
  },
  decisions: {
    en: 'Decision log',
    ja: '決定の記録',
    also: ['decisions', '決定記録', '意思決定の記録', '判断の記録', '決定ログ'],
  },
  outcomes: {
    en: 'Outcomes & retrospective',
    ja: '結果と振り返り',
    also: ['outcomes', 'outcome', 'retrospective', '結果', '成果', '成果と振り返り', '振り返り'],
  },
  recovery: {
    en: 'Idempotence & recovery',
    ja: '再実行と復旧',
    also: ['idempotence', 'recovery', '冪等性と復旧', 'べき等性と復旧', '冪等性と回復', '再実行と回復'],
  },
}

const byName = new Map(
  sectionKeys.flatMap((key) => {
    const { en, ja, also } = sectionNames[key]
    return [en, ja, ...also].map((name): [string, SectionKey] => [plain(name), key])
  }),
)

/** `6. Concrete steps`, `６．具体的な手順`, `Steps`; a number alone counts where the words are not known. */
export function sectionOf(title: string): SectionKey | undefined {
  const [, number = '', words = ''] = /^\s*(?:(\d{1,2})\s*[.)、:]?\s*)?(.*)$/s.exec(title.normalize('NFKC')) ?? []
  return byName.get(plain(words)) ?? (number === '' ? undefined : sectionKeys[Number(number) - 1])
}

/** Letters and digits alone. */
function plain(name: string): string {
  return name
    .normalize('NFKC')
    .toLowerCase()
    .replaceAll('&', 'and')
    .replaceAll(/[^\p{L}\p{N}]/gu, '')
}
