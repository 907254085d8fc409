/** Where the lab's words go: the CLI's terminal has this shape. */
export type Language = 'en' | 'ja'

/** One thing said in each language. */
export type Text = Readonly<Record<Language, string>>

export interface LabTerminal {
  readonly language: Language
  /** Columns, when a person watches. */
  readonly width: number | undefined
  readonly out: (text: string) => void
  /** Progress; a transient line is replaced by the next. */
  readonly show: (line: string, isTransient?: boolean) => void
  /** Fires on Ctrl-C. */
  readonly signal: AbortSignal
}
