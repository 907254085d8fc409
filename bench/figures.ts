/** Medians, and the one table every benchmark prints. */

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const [low = Number.NaN, high = Number.NaN] = [sorted[middle - 1 + (sorted.length % 2)], sorted[middle]]
  return (low + high) / 2
}

/** A line of the table: the name to the left, figures to the right. */
export function row(name: string, ...figures: readonly string[]): string {
  return name.padEnd(44) + figures.map((figure) => figure.padStart(10)).join('')
}

export function table(head: string, lines: readonly string[]): void {
  process.stdout.write(`${[head, '-'.repeat(head.length), ...lines].join('\n')}\n\n`)
}
